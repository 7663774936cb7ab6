"""The verbs of the command line, one a module: its options, and what it prints.

Long work shows its progress on stderr, results go to stdout.
"""
