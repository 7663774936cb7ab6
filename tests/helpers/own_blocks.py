"""Building blocks as a user has them, in a module of their own."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch

from simdistill.method.algorithm import ScoreDistillation
from simdistill.method.distances import Distance, PseudoHuber, SquaredL2
from simdistill.method.objectives import ScoreImplicitMatching
from simdistill.method.shapes import dot, like


@dataclass(frozen=True)
class Cauchy:
    """A distance: c²/2 ln(1 + ‖y‖²/c²)."""

    c: float = 1.0

    def value(self, y):
        return self.c**2 * torch.log1p(dot(y, y) / self.c**2) / 2

    def gradient(self, y):
        return y / like(1 + dot(y, y) / self.c**2, y)


@dataclass(frozen=True)
class Blend:
    """An objective with a distance, a share and a text among its fields."""

    distance: Distance = PseudoHuber()  # noqa: RUF009  (frozen)
    share: float = 0.5
    note: str = ""

    def __call__(self, x_0, y, error):
        return (1 - self.share) * ScoreImplicitMatching(self.distance)(x_0, y, error) + self.share * dot(y, y)


@dataclass(frozen=True)
class Flipped(ScoreImplicitMatching):
    """A class derived from one of the package's own."""

    def __call__(self, x_0, y, error):
        return -super().__call__(x_0, y, error)


@dataclass(frozen=True)
class LogUniform:
    """A noise distribution."""

    low: float = 0.01
    high: float = 20.0

    def quantile(self, u):
        return self.low * (self.high / self.low) ** u

    def cdf(self, sigma):
        return (torch.log(sigma / self.low) / torch.log(torch.tensor(self.high / self.low))).clamp(0, 1)


@dataclass(frozen=True)
class Cubed:
    """A weight."""

    power: int = 3

    def __call__(self, sigma, error):
        return sigma**self.power


@dataclass(frozen=True)
class Constant:
    """An EMA that forgets the same share at every step."""

    share: float = 0.9

    def decay(self, batch, images):
        return self.share


@dataclass(frozen=True)
class Shared:
    """A method: Algorithm 2 with shared samples whatever the recipe says."""

    base: ScoreDistillation = field(default=ScoreDistillation(), repr=False)
    student: ClassVar[str] = "generator"

    def networks(self, teacher, start):
        return self.base.networks(teacher, start)

    def updates(self):
        return replace(self.base, share_samples=True).updates()


class Plain:
    """No dataclass."""

    def __call__(self, x_0, y, error):
        return dot(y, y)


@dataclass(frozen=True)
class WithoutError:
    """An objective's name, not its arguments."""

    def __call__(self, x_0, y):
        return dot(y, y)


@dataclass(frozen=True)
class HalfADistance:
    """A value without its gradient."""

    def value(self, y):
        return dot(y, y)


@dataclass(frozen=True)
class OfAFunction:
    """An objective with a field that no text can say."""

    function: Callable = torch.abs

    def __call__(self, x_0, y, error):
        return dot(self.function(y), error)


def local():
    """An objective whose class is in no module's sight."""

    @dataclass(frozen=True)
    class Local(ScoreImplicitMatching):
        distance: Distance = SquaredL2()  # noqa: RUF009  (frozen)

    return Local()
