"""Augmentation: each parameter does what it says, the labels tell it, and chance is as asked."""

import math

import pytest
import torch

from simdistill.training.augmentation import draw, labels, moved

NOTHING = torch.zeros(1, 8)


def parameters(**values):
    names = ("x_flip", "y_flip", "scale", "angle", "direction", "strength", "x", "y")
    return torch.tensor([[float(values.get(name, 0)) for name in names]])


def smooth(size=33):
    """An image of which every value is known between the pixels too: x + 0.3 y² at coordinates from -1 to 1."""
    y, x = torch.meshgrid(*[(2 * torch.arange(size) + 1) / size - 1] * 2, indexing="ij")
    return x, y, (x + 0.3 * y**2)[None, None]


def at(x, y):
    return x + 0.3 * y**2


def inside(x, y, image, expected, radius=0.55):
    """Far from the margins, where nothing is mirrored."""
    near = (x**2 + y**2).sqrt() < radius
    torch.testing.assert_close(image[0, 0][near], expected[near], rtol=0, atol=5e-3)  # a pixel is 0.06


def test_zero_moves_nothing():
    images = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(moved(images, NOTHING.expand(3, 8)), images, rtol=0, atol=1e-5)
    assert torch.equal(labels(NOTHING), torch.zeros(1, 9))


def test_flips_and_quarter_turns_are_exact():
    image = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    for asked, expected in (
        (parameters(x_flip=1), image.flip(3)),
        (parameters(y_flip=1), image.flip(2)),
        (parameters(angle=math.pi / 2), image.rot90(-1, (2, 3))),  # y points down: clockwise
        (parameters(x_flip=1, angle=math.pi / 2), image.flip(3).rot90(-1, (2, 3))),
        (parameters(x=2), torch.cat([image[..., :2].flip(3), image[..., :-2]], 3)),  # two eighths of eight pixels
        (parameters(y=-1), torch.cat([image[:, :, 1:], image[:, :, -1:]], 2)),
    ):
        torch.testing.assert_close(moved(image, asked), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("direction", [0.0, 0.9, -2.5])
def test_a_smooth_image_is_looked_up_where_each_pixel_came_from(direction):
    x, y, image = smooth()
    scale, angle, strength = 1.1, 0.4, 0.8
    asked = parameters(y_flip=1, scale=scale, angle=angle, direction=direction, strength=strength, x=0.3, y=-0.2)
    # undo: shift, stretch along `direction` and across it, rotate, scale, flip
    u, v = x - 0.3 / 4, y + 0.2 / 4
    along = (u * math.cos(direction) + v * math.sin(direction)) / 2 ** (0.2 * strength)
    across = (-u * math.sin(direction) + v * math.cos(direction)) * 2 ** (0.2 * strength)
    u = along * math.cos(direction) - across * math.sin(direction)
    v = along * math.sin(direction) + across * math.cos(direction)
    u, v = u * math.cos(angle) + v * math.sin(angle), -u * math.sin(angle) + v * math.cos(angle)
    u, v = u / 2 ** (0.2 * scale), v / 2 ** (0.2 * scale)
    inside(x, y, moved(image, asked), at(u, -v))


def test_labels_tell_all():
    told = labels(parameters(x_flip=1, y_flip=1, scale=0.5, angle=0.4, direction=0.9, strength=-2, x=0.3, y=-0.2))
    expected = [1, 1, 0.5, math.cos(0.4) - 1, math.sin(0.4), -2 * math.cos(0.9), -2 * math.sin(0.9), 0.3, -0.2]
    torch.testing.assert_close(told, torch.tensor([expected]))


def test_chances():
    a = draw(20_000, 0.12, torch.Generator().manual_seed(0))
    used = (a != 0).double().mean(0)
    expected = torch.tensor([0.5, 0.06, 0.12, 0.12, 0.12, 0.12, 0.12, 0.12], dtype=torch.float64)
    assert ((used - expected).abs() < 4 * (expected * (1 - expected) / 20_000).sqrt()).all()
    assert torch.equal(a[:, 4] != 0, a[:, 5] != 0)
    assert torch.equal(a[:, 6] != 0, a[:, 7] != 0)
    some = a[:, 2][a[:, 2] != 0]
    assert float(some.std()) == pytest.approx(1, abs=0.06)
    angles = a[:, 3][a[:, 3] != 0]
    assert float(angles.abs().max()) <= math.pi
    assert float(angles.std()) == pytest.approx(math.pi / math.sqrt(3), abs=0.1)
    assert (draw(100, 0.0, torch.Generator())[:, 1:] == 0).all()
