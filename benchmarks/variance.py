"""The variance of a mini-batch's gradient with stratified noise levels, over that with independent ones.

Run as `python -m benchmarks.variance DRAWS ITERATIONS` in its own process.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import fresh
from benchmarks.tables import Table
from simdistill.config.recipes import EDM_TIMES, KARRAS_TIMES, RECIPES, SIM_TIMES
from simdistill.method.algorithm import Batch, frozen
from simdistill.method.noise import NoiseDistribution, sample, stratified
from simdistill.method.shapes import Sigma
from simdistill.teachers.loading import load_teacher
from simdistill.training.trainer import DistillationTrainer

DRAWS = 300
ITERATIONS = 300  # before: at the start both denoisers are the same, and the generator's gradient is zero
RESAMPLES = 1000
DIGITS = RECIPES["digits"]
NOISE: dict[str, dict[str, NoiseDistribution]] = {
    "online": {"EDM's (the recipe's)": EDM_TIMES, "SIM's": SIM_TIMES, "Karras (SiD's)": KARRAS_TIMES},
    "generator": {
        "LogNormal(-0.9, 1.2) (the recipe's)": DIGITS.generator_noise,
        "SIM's": SIM_TIMES,
        "Karras (SiD's)": KARRAS_TIMES,
    },
}


def measure(quick: bool = False) -> dict[str, Any]:
    """Total variances by update and noise distribution, and the ratio with a 95 % bootstrap interval."""
    return fresh("variance", *(["20", "20"] if quick else [str(DRAWS), str(ITERATIONS)]), threads=1)


def tables(measured: dict[str, Any]) -> list[Table]:
    """One table."""
    rows: list[list[str]] = []
    for update, compared in measured["updates"].items():
        for name, figures in compared.items():
            low, high = figures["interval"]
            over_mean = f"{figures['independent'] / figures['squared mean']:.2f}"
            rows.append([update, name, over_mean, f"{figures['ratio']:.3f}", f"{low:.3f}–{high:.3f}"])
    title = (
        f"Variance of the gradient of a batch of {DIGITS.batch} digits with stratified noise levels over that with "
        f"independent ones, {measured['draws']} draws of each, after {measured['iterations']} iterations"
    )
    columns = ["update", "noise distribution", "variance over ‖mean‖², independent", "ratio", "95 %"]
    return [Table("variance", title, columns, rows)]


def variances(draws: int, iterations: int) -> dict[str, Any]:
    """The variances by update and noise distribution, for the digits' networks early in training."""
    trainer = DistillationTrainer(load_teacher("digits"), replace(DIGITS, warmup=0))
    for _ in range(iterations):
        trainer.step()
    updates = {
        update: {name: _compared(trainer, update, noise, draws) for name, noise in compared.items()}
        for update, compared in NOISE.items()
    }
    return {"draws": draws, "iterations": iterations, "updates": updates}


def _compared(trainer: DistillationTrainer, update: str, noise: NoiseDistribution, draws: int) -> dict[str, Any]:
    rng = torch.Generator().manual_seed(0)
    grams = [
        _gram(trainer, update, lambda n, drawn=drawn: drawn(noise, n, rng), draws, rng)
        for drawn in (sample, stratified)
    ]
    everything = torch.ones(draws, dtype=torch.float64)
    independent, layered = (_total_variance(gram, everything) for gram in grams)
    ratios: list[float] = []
    for _ in range(RESAMPLES):
        counts = [
            torch.bincount(torch.randint(draws, (draws,), generator=rng), minlength=draws).double() for _ in grams
        ]
        one, other = (_total_variance(gram, count) for gram, count in zip(grams, counts, strict=True))
        ratios.append(other / one)
    interval = torch.tensor(ratios).quantile(torch.tensor([0.025, 0.975])).tolist()
    mean = float(grams[0].sum() - grams[0].trace()) / (draws * (draws - 1))  # without the draws' own variance
    return {
        "independent": independent,
        "stratified": layered,
        "squared mean": mean,
        "ratio": layered / independent,
        "interval": interval,
    }


def _gram(
    trainer: DistillationTrainer, update: str, levels: Callable[[int], Sigma], draws: int, rng: torch.Generator
) -> Tensor:
    """The inner products of the gradients of `draws` mini-batches, `[draws, draws]`, float64."""
    asked = next(one for one in trainer.updates if one.network == update)
    parameters, still = list(trainer.networks[update].parameters()), [trainer.players[name] for name in asked.freezes]
    rows: list[Tensor] = []
    for _ in range(draws):
        n = trainer.recipe.batch
        z, eps = (torch.randn(n, *trainer.teacher.shape, generator=rng) for _ in range(2))
        labels = torch.randint(trainer.teacher.classes, (n,), generator=rng)
        with frozen(*still):
            loss = asked.loss(trainer.players, Batch(z, levels(n), eps, labels)).value
            gradients = torch.autograd.grad(loss.mean(), parameters)
        rows.append(torch.cat([g.flatten() for g in gradients]))
    stacked = torch.stack(rows)
    return (stacked @ stacked.T).double()


def _total_variance(gram: Tensor, counts: Tensor) -> float:
    """The trace of the covariance of the draws, each taken `counts` times: (Σ‖g‖² - ‖Σg‖²/n) / (n - 1)."""
    n = counts.sum()
    return float((gram.diagonal() @ counts - counts @ gram @ counts / n) / (n - 1))


if __name__ == "__main__":
    print(json.dumps(variances(int(sys.argv[1]), int(sys.argv[2]))))
