"""Random numbers as a function of (seed, position): a resumed run draws the same ones without restoring any state."""

import hashlib
from collections.abc import Sequence

import torch

from simdistill.method.shapes import Data

BLOCK = 64  # rows that share a stream


def stream(seed: int, *position: int | str) -> torch.Generator:
    """A CPU generator seeded by `seed` and a position (such as an iteration), independent of other positions."""
    digest = hashlib.sha256(repr((seed, *position)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))


def normal_rows(rows: slice, shape: Sequence[int], seed: int, *position: int | str) -> Data:
    """Standard normal rows `[rows.stop - rows.start, *shape]` of an infinite table given by `seed` and `position`.

    A row depends only on its index in the table, and only the requested rows are drawn (to within `BLOCK`): processes
    that share a batch draw their own rows of the same table.
    """
    first = rows.start // BLOCK
    blocks = range(first, -(-rows.stop // BLOCK))
    drawn = [torch.randn(BLOCK, *shape, generator=stream(seed, *position, block)) for block in blocks]
    return torch.cat(drawn)[rows.start - first * BLOCK : rows.stop - first * BLOCK]
