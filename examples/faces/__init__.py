"""A data set of colour faces with exactly known attributes: pictures, captions, and a classifier of the attributes."""
