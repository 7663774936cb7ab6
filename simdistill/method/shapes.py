"""The shape annotations of all signatures, and two helpers for broadcasting.

A batch of data has any number of axes after the first (`[batch, 64]` vectors, `[batch, 3, 32, 32]` images); a noise
level, a weight or a loss is one number per sample. The test suite checks these annotations at every call.
"""

from typing import TypeAlias

from jaxtyping import Float, Shaped
from torch import Tensor

from simdistill.method.text import Text

Data: TypeAlias = Float[Tensor, "batch *data"]
Pictures: TypeAlias = Float[Tensor, "batch ..."]
"""Decoded samples: latents decode to another shape."""
Sigma: TypeAlias = Float[Tensor, " batch"]
PerSample: TypeAlias = Float[Tensor, " batch"]
Condition: TypeAlias = Shaped[Tensor, "batch *condition"] | Text | None
"""What networks are conditioned on, one row per sample: integer class labels `[batch]`, encoded prompts, or nothing."""
Rows: TypeAlias = Shaped[Tensor, " batch"] | None
"""The condition of each sample: its class label, or its prompt's index in a list; None if unconditional."""


def like(per_sample: PerSample, data: Data) -> Tensor:
    """`per_sample` of shape `[batch]` as `[batch, 1, …, 1]`, ready to multiply `data`.

    Plain broadcasting would silently align `[batch]` with the *last* axis of `data`.
    """
    return per_sample.reshape(-1, *[1] * (data.ndim - 1))


def dot(a: Data, b: Data) -> PerSample:
    """The inner product per sample, `a_i · b_i`, both flattened; shape `[batch]`."""
    return (a * b).flatten(1).sum(1)
