"""The one-step generator [B.4]."""

import torch
from torch import nn

from simdistill.method.shapes import Condition, Data
from simdistill.support.checks import require


class Generator(nn.Module):
    """g(z) = d(sigma_init z, sigma_init), z ~ N(0, I): a denoiser asked once, at one noise level [B.4].

    The paper draws its input from N(0, sigma_init² I); scaling a standard normal z is the same law, and lets a teacher
    (starting at its own largest level) and a student start from the same z. B.3 names the level sigma_init; its value
    2.5 is in every column of Table 5. `denoiser` has the teacher's architecture and starts from its weights.
    """

    def __init__(self, denoiser: nn.Module, sigma_init: float = 2.5) -> None:
        super().__init__()
        require(sigma_init > 0, "sigma_init", sigma_init, "positive")
        self.denoiser, self.sigma_init = denoiser, sigma_init

    def forward(self, z: Data, condition: Condition = None) -> Data:
        """One sample for each row of standard normal `z`, of the same shape."""
        sigma = torch.full((z.shape[0],), self.sigma_init, device=z.device, dtype=z.dtype)
        return self.denoiser(self.sigma_init * z, sigma, condition)
