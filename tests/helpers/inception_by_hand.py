"""Inception-v3 as it was published for the FID, written down once more: a table of its layers, and one function."""

import math

import torch
from torch.nn.functional import avg_pool2d, batch_norm, conv2d, max_pool2d, relu

# Every convolution as (name, inputs, outputs, kernel height, kernel width): Table 1 of the paper and its Figures 5 to 7
# in the sizes of the published weights.
STEM = [
    ("Conv2d_1a_3x3", 3, 32, 3, 3),
    ("Conv2d_2a_3x3", 32, 32, 3, 3),
    ("Conv2d_2b_3x3", 32, 64, 3, 3),
    ("Conv2d_3b_1x1", 64, 80, 1, 1),
    ("Conv2d_4a_3x3", 80, 192, 3, 3),
]


def block_a(name, n, pool):
    return [
        (f"{name}.branch1x1", n, 64, 1, 1),
        (f"{name}.branch5x5_1", n, 48, 1, 1),
        (f"{name}.branch5x5_2", 48, 64, 5, 5),
        (f"{name}.branch3x3dbl_1", n, 64, 1, 1),
        (f"{name}.branch3x3dbl_2", 64, 96, 3, 3),
        (f"{name}.branch3x3dbl_3", 96, 96, 3, 3),
        (f"{name}.branch_pool", n, pool, 1, 1),
    ]


def block_c(name, c):
    return [
        (f"{name}.branch1x1", 768, 192, 1, 1),
        (f"{name}.branch7x7_1", 768, c, 1, 1),
        (f"{name}.branch7x7_2", c, c, 1, 7),
        (f"{name}.branch7x7_3", c, 192, 7, 1),
        (f"{name}.branch7x7dbl_1", 768, c, 1, 1),
        (f"{name}.branch7x7dbl_2", c, c, 7, 1),
        (f"{name}.branch7x7dbl_3", c, c, 1, 7),
        (f"{name}.branch7x7dbl_4", c, c, 7, 1),
        (f"{name}.branch7x7dbl_5", c, 192, 1, 7),
        (f"{name}.branch_pool", 768, 192, 1, 1),
    ]


def block_e(name, n):
    return [
        (f"{name}.branch1x1", n, 320, 1, 1),
        (f"{name}.branch3x3_1", n, 384, 1, 1),
        (f"{name}.branch3x3_2a", 384, 384, 1, 3),
        (f"{name}.branch3x3_2b", 384, 384, 3, 1),
        (f"{name}.branch3x3dbl_1", n, 448, 1, 1),
        (f"{name}.branch3x3dbl_2", 448, 384, 3, 3),
        (f"{name}.branch3x3dbl_3a", 384, 384, 1, 3),
        (f"{name}.branch3x3dbl_3b", 384, 384, 3, 1),
        (f"{name}.branch_pool", n, 192, 1, 1),
    ]


LAYERS = [
    *STEM,
    *block_a("Mixed_5b", 192, 32),
    *block_a("Mixed_5c", 256, 64),
    *block_a("Mixed_5d", 288, 64),
    ("Mixed_6a.branch3x3", 288, 384, 3, 3),
    ("Mixed_6a.branch3x3dbl_1", 288, 64, 1, 1),
    ("Mixed_6a.branch3x3dbl_2", 64, 96, 3, 3),
    ("Mixed_6a.branch3x3dbl_3", 96, 96, 3, 3),
    *block_c("Mixed_6b", 128),
    *block_c("Mixed_6c", 160),
    *block_c("Mixed_6d", 160),
    *block_c("Mixed_6e", 192),
    ("Mixed_7a.branch3x3_1", 768, 192, 1, 1),
    ("Mixed_7a.branch3x3_2", 192, 320, 3, 3),
    ("Mixed_7a.branch7x7x3_1", 768, 192, 1, 1),
    ("Mixed_7a.branch7x7x3_2", 192, 192, 1, 7),
    ("Mixed_7a.branch7x7x3_3", 192, 192, 7, 1),
    ("Mixed_7a.branch7x7x3_4", 192, 192, 3, 3),
    *block_e("Mixed_7b", 1280),
    *block_e("Mixed_7c", 2048),
]


def random_state():
    """Random weights under the published names, from the table alone: activations neither die nor explode."""
    rng = torch.Generator().manual_seed(0)
    tensors = {}
    for name, inputs, outputs, height, width in LAYERS:
        scale = math.sqrt(2 / (inputs * height * width))
        tensors[f"{name}.conv.weight"] = scale * torch.randn(outputs, inputs, height, width, generator=rng)
        tensors[f"{name}.bn.weight"] = 1 + 0.1 * torch.randn(outputs, generator=rng)
        tensors[f"{name}.bn.bias"] = 0.1 * torch.randn(outputs, generator=rng)
        tensors[f"{name}.bn.running_mean"] = 0.1 * torch.randn(outputs, generator=rng)
        tensors[f"{name}.bn.running_var"] = 1 + 0.1 * torch.rand(outputs, generator=rng)
    tensors["fc.weight"], tensors["fc.bias"] = torch.randn(1008, 2048, generator=rng) / 50, torch.randn(1008)
    return tensors


def features_by_hand(state, x):
    """The network as one function of the state dict, in float64: `x` of 299×299 pixels."""

    def layer(name, x, stride=1, padding=0):
        x = conv2d(x, state[f"{name}.conv.weight"], stride=stride, padding=padding)
        norm = {key: state[f"{name}.bn.{key}"] for key in ("running_mean", "running_var", "weight", "bias")}
        return relu(batch_norm(x, **norm, eps=0.001))

    def mean(x):  # the sum over a border of zeros, divided by how many of the nine pixels there are
        ones = avg_pool2d(torch.ones_like(x[:1, :1]), 3, 1, 1)
        return avg_pool2d(x, 3, 1, 1) / ones

    def a(name, x):
        double = layer(f"{name}.branch3x3dbl_2", layer(f"{name}.branch3x3dbl_1", x), padding=1)
        return torch.cat(
            [
                layer(f"{name}.branch1x1", x),
                layer(f"{name}.branch5x5_2", layer(f"{name}.branch5x5_1", x), padding=2),
                layer(f"{name}.branch3x3dbl_3", double, padding=1),
                layer(f"{name}.branch_pool", mean(x)),
            ],
            1,
        )

    def c(name, x):
        row, column = (0, 3), (3, 0)
        once = layer(f"{name}.branch7x7_2", layer(f"{name}.branch7x7_1", x), padding=row)
        twice = layer(f"{name}.branch7x7dbl_2", layer(f"{name}.branch7x7dbl_1", x), padding=column)
        twice = layer(f"{name}.branch7x7dbl_4", layer(f"{name}.branch7x7dbl_3", twice, padding=row), padding=column)
        return torch.cat(
            [
                layer(f"{name}.branch1x1", x),
                layer(f"{name}.branch7x7_3", once, padding=column),
                layer(f"{name}.branch7x7dbl_5", twice, padding=row),
                layer(f"{name}.branch_pool", mean(x)),
            ],
            1,
        )

    def e(name, x, pool):
        three = layer(f"{name}.branch3x3_1", x)
        double = layer(f"{name}.branch3x3dbl_2", layer(f"{name}.branch3x3dbl_1", x), padding=1)
        return torch.cat(
            [
                layer(f"{name}.branch1x1", x),
                layer(f"{name}.branch3x3_2a", three, padding=(0, 1)),
                layer(f"{name}.branch3x3_2b", three, padding=(1, 0)),
                layer(f"{name}.branch3x3dbl_3a", double, padding=(0, 1)),
                layer(f"{name}.branch3x3dbl_3b", double, padding=(1, 0)),
                layer(f"{name}.branch_pool", pool(x)),
            ],
            1,
        )

    state = {name: tensor.double() for name, tensor in state.items()}
    sizes = [x.shape[-1]]
    x = layer("Conv2d_2a_3x3", layer("Conv2d_1a_3x3", x.double(), stride=2))
    x = max_pool2d(layer("Conv2d_2b_3x3", x, padding=1), 3, 2)
    x = max_pool2d(layer("Conv2d_4a_3x3", layer("Conv2d_3b_1x1", x)), 3, 2)
    for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        x = a(name, x)
    sizes.append(x.shape[-1])
    double = layer("Mixed_6a.branch3x3dbl_2", layer("Mixed_6a.branch3x3dbl_1", x), padding=1)
    reduced = [layer("Mixed_6a.branch3x3", x, stride=2), layer("Mixed_6a.branch3x3dbl_3", double, stride=2)]
    x = torch.cat([*reduced, max_pool2d(x, 3, 2)], 1)
    for name in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        x = c(name, x)
    sizes.append(x.shape[-1])
    seven = layer("Mixed_7a.branch7x7x3_2", layer("Mixed_7a.branch7x7x3_1", x), padding=(0, 3))
    seven = layer("Mixed_7a.branch7x7x3_3", seven, padding=(3, 0))
    three = layer("Mixed_7a.branch3x3_2", layer("Mixed_7a.branch3x3_1", x), stride=2)
    x = torch.cat([three, layer("Mixed_7a.branch7x7x3_4", seven, stride=2), max_pool2d(x, 3, 2)], 1)
    x = e("Mixed_7b", x, mean)
    # the maximum of the neighbours: the border counts as nothing
    x = e("Mixed_7c", x, lambda x: max_pool2d(torch.nn.functional.pad(x, (1, 1, 1, 1), value=-math.inf), 3, 1))
    sizes.append(x.shape[-1])
    assert sizes == [299, 35, 17, 8]  # as the paper's table
    return x.flatten(2).mean(2)
