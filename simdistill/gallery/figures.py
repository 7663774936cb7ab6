"""How close a two-dimensional student is to the mixture that it was distilled from."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from simdistill.evaluation.figures import over_seeds
from simdistill.evaluation.metrics import energy_distance, sliced_wasserstein
from simdistill.evaluation.modes import Modes, modes
from simdistill.evaluation.quality import REFERENCE_SEED
from simdistill.evaluation.sampling import Sampler, draw
from simdistill.method.denoisers import GaussianMixture
from simdistill.support.bar import progress_bar

SHOWN = ("energy", "sliced_wasserstein", "within_4_sigma", "modes_found", "mass_deviation")
"""The metrics of a gallery, by their names in the table of metrics."""
SEEDS = 5
SAMPLES = 100_000
"""Samples per evaluation seed; the mode masses are those of all seeds together."""
PAIRED = 4000
"""Samples per seed, and exact ones, that the two distances compare."""


def figures_of(
    samplers: Mapping[str, Sampler], mixture: GaussianMixture, device: torch.device | str = "cpu"
) -> dict[str, dict[str, Any]]:
    """The metrics of each sampler by name, and of "exact" samples, whose values show the sampling error.

    Each of the metrics `SHOWN` is {mean, std, seeds, values}. Distances and shares are over 5 evaluation seeds of 4,000
    and 100,000 samples each; modes and masses are one value of all 500,000 samples, the number in `samples`.
    """
    reference = mixture.sample(PAIRED, torch.Generator().manual_seed(REFERENCE_SEED))
    found: dict[str, dict[str, Any]] = {}
    with progress_bar("samples", (len(samplers) + 1) * SEEDS * SAMPLES, shown=True) as advance:

        def drawn(name: str, seed: int) -> Tensor:
            advance(SAMPLES)
            if name == "exact":
                return mixture.sample(SAMPLES, torch.Generator().manual_seed(seed))
            return draw(samplers[name], range(seed * SAMPLES, (seed + 1) * SAMPLES), mixture.shape, device=device)

        for name in (*samplers, "exact"):
            sets = [drawn(name, seed) for seed in range(SEEDS)]
            parts = [modes(x, mixture) for x in sets]
            whole = Modes(
                torch.stack([part.masses for part in parts]).mean(0),
                parts[0].weights,
                torch.stack([part.near for part in parts]).mean(0),
            )
            found[name] = {
                "energy": over_seeds([energy_distance(x[:PAIRED], reference) for x in sets]),
                "sliced_wasserstein": over_seeds([sliced_wasserstein(x[:PAIRED], reference) for x in sets]),
                "within_4_sigma": over_seeds([part.within for part in parts]),
                "modes_found": over_seeds([float(whole.found)]),
                "mass_deviation": over_seeds([whole.deviation]),
                "samples": SEEDS * SAMPLES,
            }
    return found
