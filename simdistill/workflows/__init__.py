"""What the command line does, as functions: each binds training, evaluation and a run's folder together."""
