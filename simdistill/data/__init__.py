"""Data sets: densities, images, prompts."""
