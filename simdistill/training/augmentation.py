"""EDM's non-leaking augmentation: images are transformed, the network is conditioned on how (Karras et al. 2022, F.2).

A row of parameters is a = (x-flip, y-flip, ln₂ scale / 0.2, rotation, anisotropy's direction and ln₂ strength / 0.2,
shift in x and y as eighths of the width); zeros are the identity.
"""

import math
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from simdistill.method.shapes import Data

Parameters: TypeAlias = Float[Tensor, "batch 8"]

LABELS = 9
"""Number of augmentation labels per image."""


def draw(n: int, probability: float, rng: torch.Generator) -> Parameters:
    """Random parameters of `n` images: x-flips at random, and each of the other five with `probability`."""
    asked = (torch.rand(n, 5, generator=rng) < probability).float()
    y_flip, scale, rotation, anisotropy, shift = asked.split(1, dim=1)
    flips = torch.randint(0, 2, (n, 2), generator=rng).float()
    angles = math.pi * (2 * torch.rand(n, 2, generator=rng) - 1)
    normal = torch.randn(n, 4, generator=rng)
    parts = [
        flips[:, :1],
        flips[:, 1:] * y_flip,
        normal[:, :1] * scale,
        angles[:, :1] * rotation,
        angles[:, 1:] * anisotropy,
        normal[:, 1:2] * anisotropy,
        normal[:, 2:] * shift,
    ]
    return torch.cat(parts, dim=1)


def labels(a: Parameters) -> Float[Tensor, "batch 9"]:
    """The network's augmentation labels: zero for the identity, and continuous in angles."""
    x_flip, y_flip, scale, angle, direction, strength, x, y = a.T
    rotation = [angle.cos() - 1, angle.sin()]
    anisotropy = [strength * direction.cos(), strength * direction.sin()]
    return torch.stack([x_flip, y_flip, scale, *rotation, *anisotropy, x, y], dim=1)


def moved(images: Data, a: Parameters) -> Data:
    """The square `images` `[batch, channels, size, size]`, flipped, scaled, rotated, stretched, shifted, in that order.

    With bicubic interpolation and reflection padding.
    """
    x_flip, y_flip, scale, angle, direction, strength, x, y = a.to(images).T
    flip = _diagonal(1 - 2 * x_flip, 1 - 2 * y_flip)
    size = _diagonal(2 ** (0.2 * scale), 2 ** (0.2 * scale))
    stretch = _rotation(direction) @ _diagonal(2 ** (0.2 * strength), 2 ** (-0.2 * strength)) @ _rotation(-direction)
    forward = stretch @ _rotation(angle) @ size @ flip
    back = torch.linalg.inv(forward)  # maps each output pixel to its source
    shift = torch.stack([x, y], dim=1)[:, :, None] / 8 * 2  # in units where the image spans -1 to 1
    grid = affine_grid(torch.cat([back, -back @ shift], dim=2), list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="bicubic", padding_mode="reflection", align_corners=False)


def _diagonal(x: Tensor, y: Tensor) -> Tensor:
    return torch.diag_embed(torch.stack([x, y], dim=1))


def _rotation(angle: Tensor) -> Tensor:
    c, s = angle.cos(), angle.sin()
    return torch.stack([torch.stack([c, -s], dim=1), torch.stack([s, c], dim=1)], dim=1)
