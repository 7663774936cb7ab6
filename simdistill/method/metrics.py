"""A metric of your own: a number that tells how good samples are, from features of them and of a reference."""

from typing import Literal, Protocol, TypeAlias, runtime_checkable

from jaxtyping import Float
from torch import Tensor

Better: TypeAlias = Literal["lower", "higher"]


@runtime_checkable
class OwnMetric(Protocol):
    """A frozen dataclass with these attributes, which settings name as package.module:Class(argument=…)."""

    @property
    def name(self) -> str:
        """Its key in JSON and in tables, as "memorised": letters, digits and underscores."""
        ...

    @property
    def title(self) -> str:
        """What the report calls it."""
        ...

    @property
    def better(self) -> Better:
        """Whether "lower" or "higher" is better."""
        ...

    def __call__(
        self, samples: Float[Tensor, "samples dimensions"], reference: Float[Tensor, "references dimensions"]
    ) -> float:
        """The metric of `samples` against `reference`, both in features of one extractor, one row a sample."""
        ...
