"""Running means of losses, gradient norms and ‖y‖ by noise level, kept on the device until they are read."""

from typing import Any

import torch
from torch import Tensor

from simdistill.method.shapes import PerSample, Sigma
from simdistill.training.processes import ALONE, Processes


class NoiseProfile:
    """Means since the last reading, over all `processes`; ‖y‖₂ also in `levels` bins of ln sigma, in range.

    ‖y‖, the length of the difference of the two denoisers, is what tells how far the generator is from the teacher;
    the generator's loss itself says nothing.
    """

    def __init__(
        self,
        sigma_min: float,
        sigma_max: float,
        device: torch.device,
        processes: Processes = ALONE,
        levels: int = 8,
    ) -> None:
        log_edges = torch.linspace(0, 1, levels + 1) * torch.log(torch.tensor(sigma_max / sigma_min))
        self.edges, self._processes = (sigma_min * log_edges.exp()).to(device), processes
        self.clear()

    def add_online(self, loss: PerSample, gradient_norm: Tensor) -> None:
        """Count an online update."""
        self._add("loss", loss.sum(), len(loss))
        self._add("gradient_norm", gradient_norm, 1)

    def add_generator(self, sigma: Sigma, loss: PerSample, y: PerSample, gradient_norm: Tensor) -> None:
        """Count a generator update."""
        self._add("generator_loss", loss.sum(), len(loss))
        self._add("generator_gradient_norm", gradient_norm, 1)
        self._add("y_norm", y.sum(), len(y))
        level = torch.bucketize(sigma, self.edges[1:-1])  # levels beyond the range count in the outer bins
        self.y[0].index_add_(0, level, y)
        self.y[1].index_add_(0, level, torch.ones_like(y))

    def read(self) -> dict[str, Any]:
        """The means since the last reading, and start anew; `y` maps the geometric middle of a bin to its mean ‖y‖."""
        sums = torch.cat([torch.stack(list(self.sums.values())), self.y.T])
        totals, counts = self._processes.add_up(sums).T.tolist()
        means = {name: t / n for name, t, n in zip(self.sums, totals, counts, strict=False)}
        middles = (self.edges[1:] * self.edges[:-1]).sqrt().tolist()
        levels = zip(middles, totals[len(means) :], counts[len(means) :], strict=True)
        self.clear()
        return {**means, "y": {f"{middle:.3g}": t / n for middle, t, n in levels if n}}

    def clear(self) -> None:
        """Forget everything counted."""
        self.sums: dict[str, Tensor] = {}
        self.y = torch.zeros(2, len(self.edges) - 1, device=self.edges.device)

    def _add(self, name: str, total: Tensor, count: int) -> None:
        pair = torch.stack([total, total.new_full((), count)])  # new_tensor would wait for a GPU
        self.sums[name] = self.sums[name] + pair if name in self.sums else pair
