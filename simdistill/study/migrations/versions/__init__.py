"""The migrations, each in a file, in the order of their numbers."""
