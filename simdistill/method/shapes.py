"""The shape vocabulary of every signature, and the two helpers that broadcast over it.

A batch of data has any number of axes behind the first (`[batch, 64]` vectors, `[batch, 3, 32, 32]` images); a noise
level, a weight or a loss is one number per sample. The test suite runs with these annotations checked at every call.
"""

from typing import TypeAlias

from jaxtyping import Float, Shaped
from torch import Tensor

from simdistill.method.text import Text

Data: TypeAlias = Float[Tensor, "batch *data"]
Pictures: TypeAlias = Float[Tensor, "batch ..."]
"""What samples look like, which if they are latents is of another shape."""
Sigma: TypeAlias = Float[Tensor, " batch"]
PerSample: TypeAlias = Float[Tensor, " batch"]
Condition: TypeAlias = Shaped[Tensor, "batch *condition"] | Text | None
"""What networks are conditioned on, one row a sample: integer class labels `[batch]`, encoded prompts, or nothing."""
Rows: TypeAlias = Shaped[Tensor, " batch"] | None
"""Which condition each sample has: its class label, or its prompt's place in a list; None where there is none."""


def like(per_sample: PerSample, data: Data) -> Tensor:
    """`per_sample` of shape `[batch]` as `[batch, 1, …, 1]`, ready to multiply `data`.

    Spelled out because plain broadcasting would silently align `[batch]` with the *last* axis of `data`.
    """
    return per_sample.reshape(-1, *[1] * (data.ndim - 1))


def dot(a: Data, b: Data) -> PerSample:
    """The inner product a sample, `a_i · b_i`: both flattened, shape `[batch]`."""
    return (a * b).flatten(1).sum(1)
