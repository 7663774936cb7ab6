"""A small comparison, and figures of its cells."""

import json

from simdistill.comparison.grid import product
from simdistill.comparison.jobs import figures_of
from simdistill.comparison.setting import Setting
from simdistill.config.recipes import RECIPES
from simdistill.evaluation.figures import over_seeds

NOISE = {"generator_noise": ["Karras()", "LogNormal(-0.9,1.2)"]}


def a_comparison(folder):
    """Two variants with two training seeds each."""
    return Setting(RECIPES["digits"], product(NOISE), folder / "compare", training_seeds=2, samples=100)


def measured(jobs, *distances, samples=100):
    for job, distance in zip(jobs, distances, strict=False):
        metrics = {"frechet": [distance] * 3, "precision": [0.8] * 3, "recall": [0.7] * 3}
        figures = {name: over_seeds(values) for name, values in metrics.items()} | {"samples": samples, "nfe": 35}
        figures |= {"reference": "the <training> images", "features": "digits-0", "real": None}
        figures_of(job.run).write_text(json.dumps(figures))
        for iteration in (0, 8000):
            quality = {"frechet": over_seeds([distance + 1]), "recall": over_seeds([0.5])}
            job.run.log_metrics({"iteration": iteration, "seconds": iteration / 80, "quality": quality})
