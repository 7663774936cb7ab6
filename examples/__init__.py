"""What users of the package can build on it, and how its own data and teachers were made."""
