"""Data sets small enough to come with the package or with a dependency."""
