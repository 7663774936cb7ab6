"""The human preference study: for each prompt, people choose the better of two images (the paper's B.4)."""
