"""Sampling: initial noise with one seed per sample, and the Heun reference sampler."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from simdistill.method.denoisers import Denoiser, residual
from simdistill.method.shapes import Condition, Data
from simdistill.support.checks import require


def noise_from_seeds(seeds: Sequence[int], shape: Sequence[int]) -> Data:
    """Standard normal z of shape `[len(seeds), *shape]`; row i depends on `seeds[i]` alone.

    The same seed gives the same sample regardless of batch, on one machine or many. The noise is drawn on the CPU in
    float32, so that it is the same for every device. Raises `ValueError` without seeds, or for a seed outside [0, 2³²).
    """
    require(len(seeds) > 0, "seeds", list(seeds), "at least one")
    bad = [seed for seed in seeds if not 0 <= seed < 2**32]  # torch uses 32 bits
    require(not bad, "seeds", bad[:3], "from 0 to 2³² - 1")
    rng = torch.Generator()
    return torch.stack([torch.randn(*shape, generator=rng.manual_seed(seed)) for seed in seeds])


def karras_steps(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """sigma_0 = sigma_max > … > sigma_{steps-1} = sigma_min, then 0: the sampler's levels (Karras et al. 2022, eq. 5).

    Float64, shape `[steps + 1]`.
    """
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return torch.cat([(high + ramp * (low - high)) ** rho, torch.zeros(1, dtype=torch.float64)])


@torch.no_grad()
def heun(
    denoiser: Denoiser,
    z: Data,
    condition: Condition = None,
    steps: int = 18,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
) -> Data:
    """EDM's deterministic second-order sampler (Karras et al. 2022, Algorithm 1), with NFE = 2 steps - 1.

    Integrates dx/dsigma = (x - d(x, sigma)) / sigma from x = sigma_max z, `z` standard normal `[batch, …]`, down to 0.
    """
    require(steps >= 2, "steps", steps, "at least 2")
    require(0 < sigma_min < sigma_max, "sigma_min", sigma_min, f"above 0 and below sigma_max = {sigma_max}")

    def slope(x: Data, sigma: float) -> Data:
        level = torch.full((len(x),), sigma, dtype=x.dtype, device=x.device)
        return -residual(denoiser, x, level, condition) / sigma

    sigmas = karras_steps(steps, sigma_min, sigma_max).tolist()
    x = sigmas[0] * z
    for sigma, following in pairwise(sigmas):
        d = slope(x, sigma)
        euler = x + (following - sigma) * d
        x = euler if following == 0 else x + (following - sigma) * (d + slope(euler, following)) / 2
    return x
