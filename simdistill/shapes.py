"""The shape vocabulary of every signature, and the two helpers that broadcast over it.

A batch of data has any number of axes behind the first (`[batch, 64]` vectors, `[batch, 3, 32, 32]` images); a noise
level, a weight or a loss is one number per sample. The test suite runs with these annotations checked at every call.
"""

from typing import TypeAlias

from jaxtyping import Float, Shaped
from torch import Tensor

Data: TypeAlias = Float[Tensor, "batch *data"]
Pictures: TypeAlias = Float[Tensor, "batch ..."]
"""What samples look like, which if they are latents is of another shape."""
Sigma: TypeAlias = Float[Tensor, " batch"]
PerSample: TypeAlias = Float[Tensor, " batch"]
Condition: TypeAlias = Shaped[Tensor, "batch *condition"] | None
"""What the networks are conditioned on: `None`, or a tensor with one row a sample (integer class labels `[batch]`)."""


def like(per_sample: PerSample, data: Data) -> Tensor:
    """`per_sample` of shape `[batch]` as `[batch, 1, …, 1]`, ready to multiply `data`.

    Spelled out because plain broadcasting would silently align `[batch]` with the *last* axis of `data`.
    """
    return per_sample.reshape(-1, *[1] * (data.ndim - 1))


def dot(a: Data, b: Data) -> PerSample:
    """The inner product a sample, `a_i · b_i`: both flattened, shape `[batch]`."""
    return (a * b).flatten(1).sum(1)
