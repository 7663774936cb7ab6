"""A data set of colour faces whose attributes are known exactly: pictures, captions, and a judge of what is seen."""
