"""Teachers that no recipe was made for: other predictions, other noise schedules, other scales, on the 8×8 digits."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from simdistill.data.images import open_images
from simdistill.method.denoisers import residual
from simdistill.method.noise import DiscreteVP
from simdistill.method.shapes import Condition, Data, Sigma
from simdistill.networks.mlp import MLP
from simdistill.support.tensors import fill, read_tensors
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.prediction_types import EpsilonPrediction, FlowPrediction, NearestTime
from simdistill.teachers.teacher import Judged, Teacher
from simdistill.teachers.weights import write_network

ITERATIONS, BATCH, RATE = 6000, 256, 2e-3
CLASSES, SHAPE = 10, (1, 8, 8)
LINEAR = DiscreteVP().table()
"""The levels of 999 steps of linear betas, 0.015 … 157."""


class Timed(nn.Module):
    """An MLP that is called with its own time in [0, `longest`] and integer labels."""

    def __init__(self, longest: float) -> None:
        super().__init__()
        self.net, self.longest = MLP(SHAPE, 256, 3, CLASSES), longest

    def forward(self, state: Data, time: Tensor, condition: Condition = None) -> Data:
        """The network's own prediction."""
        assert isinstance(condition, Tensor)
        return self.net(state, 2 * time.float() / self.longest - 1, one_hot(condition, CLASSES).float())


class Scaled(nn.Module):
    """The denoiser of data `scale` times as large: scale d(x/scale, sigma/scale)."""

    def __init__(self, denoiser: nn.Module, scale: float) -> None:
        super().__init__()
        self.denoiser, self.scale = denoiser, scale

    def forward(self, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
        """The denoised x_0."""
        return x_t + self.residual(x_t, sigma, condition)

    def residual(self, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
        """d(x, sigma) - x, without cancellation."""
        own: nn.Module = self.denoiser
        return self.scale * residual(own, x_t / self.scale, sigma / self.scale, condition)


def epsilon(folder: Path, iterations: int = ITERATIONS) -> Teacher:
    """A network that predicts the noise at one of 999 steps of linear betas; badly, after few iterations."""

    def loss(net: nn.Module, x_0: Data, eps: Data, labels: Tensor, rng: torch.Generator) -> Tensor:
        t = torch.randint(len(LINEAR), (len(x_0),), generator=rng)
        sigma = LINEAR[t].float()[:, None, None, None]
        return (net((x_0 + sigma * eps) / torch.sqrt(1 + sigma**2), t, labels) - eps).square().mean()

    net = _fitted(Timed(len(LINEAR) - 1), loss, folder / f"epsilon-{iterations}.safetensors", iterations)
    low, high = float(LINEAR[0]), float(LINEAR[-1])
    return Teacher(EpsilonPrediction(net, NearestTime(LINEAR)), SHAPE, CLASSES, low, high, judged=Judged("digits"))


def flow(folder: Path) -> Teacher:
    """A network that predicts the velocity of a rectified flow."""

    def loss(net: nn.Module, x_0: Data, eps: Data, labels: Tensor, rng: torch.Generator) -> Tensor:
        s = torch.sigmoid(torch.randn(len(x_0), generator=rng) * 1.2)
        at = s[:, None, None, None]
        return (net((1 - at) * x_0 + at * eps, s, labels) - (eps - x_0)).square().mean()

    net = _fitted(Timed(1.0), loss, folder / "flow.safetensors")
    return Teacher(FlowPrediction(net), SHAPE, CLASSES, 0.01, 50.0, judged=Judged("digits"))


def scaled(scale: float) -> Teacher:
    """The shipped teacher of the digits for data `scale` times as large."""
    teacher = load_teacher("digits")
    assert teacher.trainable is not None
    ends = teacher.sigma_min * scale, teacher.sigma_max * scale
    return Teacher(Scaled(teacher.trainable, scale), SHAPE, CLASSES, *ends)


def _fitted(net: Timed, loss: Callable[..., Tensor], path: Path, iterations: int = ITERATIONS) -> Timed:
    """The network fitted to the digits with Adam and a cosine schedule; kept in `path`."""
    if path.exists():
        return fill(net, read_tensors(path)[0], path, "the network")
    images = open_images("digits")
    x, labels = images.batch(range(len(images))), images.labels
    assert labels is not None
    rng = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    for _ in range(iterations):
        k = torch.randint(len(x), (BATCH,), generator=rng)
        optimizer.zero_grad()
        loss(net, x[k], torch.randn(BATCH, *SHAPE, generator=rng), labels[k], rng).backward()
        optimizer.step()
        schedule.step()
    write_network(path, net)
    return net.eval().requires_grad_(False)
