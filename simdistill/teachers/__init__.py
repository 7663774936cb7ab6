"""Teachers, one file per origin; each returns a `Teacher`."""
