"""Random numbers as a function of (seed, iteration): a resumed run has nothing to restore, and draws the same."""

import hashlib

import torch


def stream(seed: int, *position: int | str) -> torch.Generator:
    """A CPU generator seeded by `seed` and a position such as an iteration, independent of all other positions."""
    digest = hashlib.sha256(repr((seed, *position)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
