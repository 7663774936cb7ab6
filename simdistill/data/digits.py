"""scikit-learn's digits: 1,797 grey 8×8 images in ten classes (Alpaydin & Kaynak 1998)."""

from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

Labelled: TypeAlias = tuple[Float[Tensor, "_ 1 8 8"], Int[Tensor, " _"]]


def digits() -> tuple[Labelled, Labelled]:
    """The training images (three quarters) and the held-out ones (every fourth); values 0 … 16 scaled to [-1, 1].

    The teacher and the reference statistics use the training images only. The held-out images give the metrics of real
    images.
    """
    from sklearn.datasets import load_digits as load  # half a second

    pixels, targets = load(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 1
    labels = torch.tensor(targets, dtype=torch.int64)
    held_out = torch.arange(len(images)) % 4 == 3
    return (images[~held_out], labels[~held_out]), (images[held_out], labels[held_out])
