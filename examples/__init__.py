"""Examples of what can be built on the package, and how its own data and teachers were made."""
