"""Running sums in float64 for moments and Inception Score, independent of how the samples are split."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from simdistill.evaluation.metrics import Features, Moments
from simdistill.support.checks import require

AllReduce = Callable[[Tensor], Tensor]
"""The sum of a tensor over all processes, in place."""

SPLITS = 10  # of the Inception Score


class RunningMoments:
    """Σ x and Σ x xᵀ of features with `dimensions`, on `device`."""

    def __init__(self, dimensions: int, device: torch.device) -> None:
        # float64 is fast on CPUs and data-centre GPUs
        device = device if device.type == "cuda" else torch.device("cpu")
        self._sums = torch.zeros(dimensions + 1, dimensions, dtype=torch.float64, device=device)
        self._counts = torch.zeros(2, dtype=torch.int64)  # samples, and values that are not finite

    def add(self, features: Features) -> None:
        """Add some samples."""
        self._counts += torch.tensor([len(features), int((~features.isfinite()).sum())])
        x = features.to(self._sums.device, torch.float64)
        self._sums[0] += x.sum(0)
        self._sums[1:].addmm_(x.T, x)

    def moments(self, all_reduce: AllReduce) -> Moments:
        """Mean and unbiased covariance of all samples, on the CPU; to be called once, in every process.

        Raises `ValueError` for fewer than 2 samples or a value that is not finite.
        """
        n, bad = all_reduce(self._counts).tolist()
        require(n >= 2, "samples", n, "at least 2")
        require(bad == 0, "non-finite values in features", bad, "0: the generator or the feature extractor diverged")
        sums = all_reduce(self._sums).cpu()
        mean = sums[0] / n
        return Moments(mean, (sums[1:] - n * torch.outer(mean, mean)) / (n - 1))


class RunningInceptionScore:
    """exp(E_x KL(p(y|x) ‖ p(y))), the Inception Score (Salimans et al. 2016), the mean over 10 splits.

    A split is a tenth of the `samples`, in order, and p(y) the mean of p(y|x) over it.
    """

    def __init__(self, samples: int) -> None:
        require(samples >= SPLITS, "samples", samples, f"at least {SPLITS}, one per split of the Inception Score")
        self._ends = torch.tensor([(k + 1) * samples // SPLITS for k in range(SPLITS)])
        self._sums: Tensor | None = None

    def add(self, first: int, probabilities: Float[Tensor, "samples classes"]) -> None:
        """Add the p(y|x) of some samples, numbered from `first`."""
        p = probabilities.cpu().double()
        # a row: 1, Σ_y p log p, p
        rows = torch.cat([torch.ones(len(p), 1), -torch.special.entr(p).sum(1, keepdim=True), p], 1)
        split = torch.bucketize(torch.arange(first, first + len(p)), self._ends, right=True)
        if self._sums is None:
            self._sums = torch.zeros(SPLITS, rows.shape[1], dtype=torch.float64)
        self._sums.index_add_(0, split, rows)

    def value(self, all_reduce: AllReduce) -> float:
        """The score of all samples, from 1 to the number of classes; to be called once, in every process."""
        assert self._sums is not None
        sums = all_reduce(self._sums)
        negative_entropy, p = sums[:, 1] / sums[:, 0], sums[:, 2:] / sums[:, :1]
        return float((negative_entropy + torch.special.entr(p).sum(1)).exp().mean())
