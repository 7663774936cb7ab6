"""Running means of losses, gradient norms and other metrics by noise level, kept on the device until read."""

from typing import Any

import torch
from torch import Tensor

from simdistill.method.algorithm import Loss
from simdistill.method.shapes import PerSample, Sigma
from simdistill.training.processes import ALONE, Processes


class NoiseProfile:
    """Means since the last `read`, over all `processes`; a loss's metrics also in `levels` equal bins of ln sigma.

    ‖y‖, the norm of the difference of the two denoisers, shows how far the generator is from the teacher; the
    generator's loss does not.
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

    def add(self, name: str, sigma: Sigma, loss: Loss, gradient_norm: Tensor) -> None:
        """Count an update of the network `name`."""
        self._add(f"{name}_loss", loss.value.sum(), len(loss.value))
        self._add(f"{name}_gradient_norm", gradient_norm, 1)
        for metric, values in loss.metrics.items():
            self._add(metric, values.sum(), len(values))
            self._add_levels(metric, sigma, values)

    def read(self) -> dict[str, Any]:
        """The means since the last call, then reset; `levels` has those of metrics by the geometric middle of a bin."""
        rows = [*self.sums.values(), *(pair for bins in self.bins.values() for pair in bins.T)]
        totals, counts = self._processes.all_reduce(torch.stack(rows)).T.tolist()
        means = {name: t / n for name, t, n in zip(self.sums, totals, counts, strict=False)}
        middles = [f"{middle:.3g}" for middle in (self.edges[1:] * self.edges[:-1]).sqrt().tolist()]
        levels: dict[str, dict[str, float]] = {}
        for k, metric in enumerate(self.bins):
            at = len(means) + k * len(middles)
            own = zip(middles, totals[at : at + len(middles)], counts[at : at + len(middles)], strict=True)
            levels[metric] = {middle: t / n for middle, t, n in own if n}
        self.clear()
        return {**means, "levels": levels}

    def clear(self) -> None:
        """Reset all means."""
        self.sums: dict[str, Tensor] = {}
        self.bins: dict[str, Tensor] = {}

    def _add(self, name: str, total: Tensor, count: int) -> None:
        pair = torch.stack([total, total.new_full((), count)])  # new_tensor would synchronise with a GPU
        self.sums[name] = self.sums[name] + pair if name in self.sums else pair

    def _add_levels(self, metric: str, sigma: Sigma, values: PerSample) -> None:
        if metric not in self.bins:
            self.bins[metric] = torch.zeros(2, len(self.edges) - 1, device=self.edges.device)
        values = values.float()
        level = torch.bucketize(sigma, self.edges[1:-1])  # levels beyond the range count in the outer bins
        self.bins[metric][0].index_add_(0, level, values)
        self.bins[metric][1].index_add_(0, level, torch.ones_like(values))
