"""Custom metrics: a number for the quality of samples, from their features and a reference's."""

from typing import Literal, Protocol, TypeAlias, runtime_checkable

from jaxtyping import Float
from torch import Tensor

Better: TypeAlias = Literal["lower", "higher"]


@runtime_checkable
class OwnMetric(Protocol):
    """A frozen dataclass with these attributes; settings name it as package.module:Class(argument=…)."""

    @property
    def name(self) -> str:
        """Its key in JSON and tables, such as "memorised": letters, digits and underscores."""
        ...

    @property
    def title(self) -> str:
        """Its title in the report."""
        ...

    @property
    def better(self) -> Better:
        """Whether "lower" or "higher" is better."""
        ...

    def __call__(
        self, samples: Float[Tensor, "samples dimensions"], reference: Float[Tensor, "references dimensions"]
    ) -> float:
        """The metric of `samples` against `reference`, both as features, one row per sample."""
        ...
