"""The shape annotations of all signatures, two helpers for broadcasting, and the check of class labels.

A batch of data has any number of axes after the first (`[batch, 64]` vectors, `[batch, 3, 32, 32]` images); a noise
level, a weight or a loss is one number per sample. The test suite checks these annotations at every call.
"""

from typing import TypeAlias, TypeGuard

import torch
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


def label_error(condition: Condition, classes: int) -> ValueError:
    """The error for a condition that is not integer class labels 0 … classes - 1 `[batch]`."""
    given = condition.tolist() if isinstance(condition, Tensor) else "encoded prompts" if condition else None
    return ValueError(f"condition = {given}: must be class labels 0 … {classes - 1} (int64), which the network expects")


def are_labels(condition: Condition) -> TypeGuard[Tensor]:
    """Whether a condition is a tensor of integers; their values are checked by the lookup, which waits for no GPU."""
    return isinstance(condition, Tensor) and condition.dtype in (torch.int64, torch.int32)
