"""Helpers for all packages: files, checks, late imports of libraries, progress bars."""
