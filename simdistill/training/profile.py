"""Running means of the losses, and of ‖y‖ by noise level, kept on the device until they are read."""

from typing import Any

import torch

from simdistill.shapes import PerSample, Sigma


class NoiseProfile:
    """Means since the last reading: both losses, and ‖y‖₂ in `levels` bins of ln sigma over the teacher's range.

    ‖y‖, the length of the difference of the two denoisers, is what tells how far the generator is from the teacher;
    the generator's loss itself says nothing.
    """

    def __init__(self, sigma_min: float, sigma_max: float, device: torch.device, levels: int = 8) -> None:
        log_edges = torch.linspace(0, 1, levels + 1) * torch.log(torch.tensor(sigma_max / sigma_min))
        self.edges = (sigma_min * log_edges.exp()).to(device)
        self.clear()

    def add_online(self, loss: PerSample) -> None:
        """Count an online update."""
        self.online += torch.stack([loss.sum(), loss.new_tensor(len(loss))])

    def add_generator(self, sigma: Sigma, loss: PerSample, y: PerSample) -> None:
        """Count a generator update."""
        self.generator += torch.stack([loss.sum(), loss.new_tensor(len(loss))])
        level = torch.bucketize(sigma, self.edges[1:-1])  # levels beyond the range count in the outer bins
        self.y[0].index_add_(0, level, y)
        self.y[1].index_add_(0, level, torch.ones_like(y))

    def read(self) -> dict[str, Any]:
        """The means since the last reading, and start anew; `y` maps the geometric middle of a bin to its mean ‖y‖."""
        online, generator = (float(total / count) for total, count in (self.online, self.generator))
        totals, counts = self.y.tolist()
        middles = (self.edges[1:] * self.edges[:-1]).sqrt().tolist()
        y = {f"{middle:.3g}": t / n for middle, t, n in zip(middles, totals, counts, strict=True) if n}
        self.clear()
        return {"loss": online, "generator_loss": generator, "y": y}

    def clear(self) -> None:
        """Forget everything counted."""
        device = self.edges.device
        self.online, self.generator = torch.zeros(2, device=device), torch.zeros(2, device=device)
        self.y = torch.zeros(2, len(self.edges) - 1, device=device)
