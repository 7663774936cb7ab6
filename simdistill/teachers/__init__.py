"""Where teachers come from: one file per origin, all of them giving a `Teacher`."""
