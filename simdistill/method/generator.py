"""The student: one or a few calls of a denoiser [B.4]."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from simdistill.method.denoisers import calls
from simdistill.method.shapes import Condition, Data
from simdistill.support.checks import require


class Generator(nn.Module):
    """g(z) = d(sigma_init z, sigma_init), z ~ N(0, I): a denoiser evaluated at one noise level [B.4], or at a few.

    The paper draws its input from N(0, sigma_init² I). Scaling a standard normal z is the same, and lets a teacher
    (which starts at its own largest level) and a student start from the same z. B.3 calls the level sigma_init; its
    value 2.5 is in every column of Table 5. `denoiser` has the teacher's architecture and starts from its weights.

    With `levels` sigma_1 > … > sigma_K the steps are Euler's: x_1 = sigma_1 z, x̂_k = d(x_k, sigma_k) and
    x_{k+1} = x̂_k + (sigma_{k+1}/sigma_k) (x_k - x̂_k); the last x̂ is the sample. Raises `ValueError` unless levels fall.
    """

    def __init__(self, denoiser: nn.Module, levels: Sequence[float] = (2.5,)) -> None:
        super().__init__()
        falling = len(levels) > 0 and min(levels) > 0 and all(high > low for high, low in pairwise(levels))
        require(falling, "levels", tuple(levels), "positive noise levels, largest first, such as (2.5,)")
        self.denoiser = denoiser
        self.levels: tuple[float, ...] = tuple(map(float, levels))

    @property
    def nfe(self) -> int:
        """Network evaluations per sample."""
        return len(self.levels) * calls(self.denoiser)

    def forward(self, z: Data, condition: Condition = None) -> Data:
        """One sample for each row of standard normal `z`, in the same shape."""
        x = self.levels[0] * z
        x_0 = self._denoised(x, self.levels[0], condition)
        for level, following in pairwise(self.levels):
            x = x_0 + following / level * (x - x_0)
            x_0 = self._denoised(x, following, condition)
        return x_0

    def _denoised(self, x: Data, level: float, condition: Condition) -> Data:
        sigma = torch.full((x.shape[0],), level, device=x.device, dtype=x.dtype)
        return self.denoiser(x, sigma, condition)
