"""A local page that shows samples of a run's teacher and student side by side."""
