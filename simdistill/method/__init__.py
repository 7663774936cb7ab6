"""The paper's formulas: objectives, distances, noise distributions, weightings, denoisers."""
