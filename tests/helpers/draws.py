"""The random inputs of a training's updates, made anew from what the trainer says of them."""

import torch

from simdistill.config.recipes import Recipe
from simdistill.method.algorithm import Batch
from simdistill.method.noise import NoiseDistribution, stratified
from simdistill.training.randomness import normal_rows, stream


def inputs(recipe: Recipe, position: str, noise: NoiseDistribution, iteration: int = 0) -> Batch:
    """Those of the whole batch of an update of the digits, as "generator", or "online 0"."""
    rng, rows = stream(recipe.seed, iteration, position), slice(0, recipe.batch)
    sigma, labels = stratified(noise, recipe.batch, rng), torch.randint(10, (recipe.batch,), generator=rng)
    z, eps = (normal_rows(rows, (1, 8, 8), recipe.seed, iteration, position, name) for name in ("z", "eps"))
    return Batch(z, sigma, eps, labels)
