"""What every room may use: files, checks, libraries that are imported late, progress bars."""
