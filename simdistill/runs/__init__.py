"""The folder of a run: what was asked for, what happened, what came out."""
