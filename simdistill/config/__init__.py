"""Recipes, and settings as text: in files, on the command line, in a run's folder."""
