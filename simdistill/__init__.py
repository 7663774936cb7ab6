"""Score Implicit Matching."""
