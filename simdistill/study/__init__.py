"""The human preference study: people see two pictures a prompt and say which is better (the paper's B.4)."""
