"""A local page on which a run's teacher and student draw the same thing side by side."""
