"""The exponential moving average of a network's weights, the network that is evaluated and kept."""

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

from simdistill.validation import require

Module = TypeVar("Module", bound=nn.Module)


class EMA(Generic[Module]):
    """An average of `module` whose memory halves every `half_life` images, shorter at the start.

    After `images` images the half-life is min(half_life, ramp_up images), as in EDM (Karras et al. 2022), so that the
    random start is forgotten soon. `average` is the averaged module, in eval mode and frozen.
    """

    def __init__(self, module: Module, half_life: float, ramp_up: float = 0.05) -> None:
        require(half_life >= 0, "ema_half_life", half_life, "at least 0 images (0 keeps no average)")
        self.half_life, self.ramp_up = half_life, ramp_up
        self.average = copy.deepcopy(module).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, module: Module, batch: int, images: int) -> None:
        """Move towards `module` after a step on `batch` images, the run's first `images` included."""
        half_life = min(self.half_life, self.ramp_up * images)
        keep = 0.5 ** (batch / half_life) if half_life > 0 else 0.0
        for average, current in zip(self.average.parameters(), module.parameters(), strict=True):
            average.lerp_(current, 1 - keep)
        for average, current in zip(self.average.buffers(), module.buffers(), strict=True):
            average.copy_(current)
