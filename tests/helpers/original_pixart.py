"""PixArt-alpha as its authors name its parts (Chen et al. 2023), in plain torch: what diffusers' network must equal.

After the published network, for small sizes and one picture at a time: it attends to the tokens that its prompt has,
the others being cut off instead of masked.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm


def waves(numbers, width, cosine_first):
    """`[n]` to `[n, width]`: sines and cosines of frequencies from 1 down towards 1/10000."""
    angles = numbers[:, None] * torch.exp(-math.log(10000) * torch.arange(width // 2) / (width // 2))
    halves = (angles.cos(), angles.sin()) if cosine_first else (angles.sin(), angles.cos())
    return torch.cat(halves, 1)


def positions(side, width, zoom=1):
    """`[1, side², width]`, row by row: the column's waves, then the row's."""
    row, column = torch.meshgrid(torch.arange(side) / zoom, torch.arange(side) / zoom, indexing="ij")
    return torch.cat([waves(place.flatten(), width // 2, False) for place in (column, row)], 1)[None]


def attend(q, k, v, heads):
    """`[n, width]` queries, `[m, width]` keys and values: each head has a stretch of neighbouring channels."""
    q, k, v = (x.unflatten(1, (heads, -1)).transpose(0, 1) for x in (q, k, v))
    weights = (q @ k.transpose(1, 2) / math.sqrt(q.shape[2])).softmax(2)
    return (weights @ v).transpose(0, 1).flatten(1)


def normal(x):
    return layer_norm(x, x.shape[-1:], eps=1e-6)


class Mapped(nn.Module):
    """Two maps with GELU's tanh form between."""

    def __init__(self, inputs, hidden, outputs):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)

    def forward(self, x):
        return self.fc2(gelu(self.fc1(x), approximate="tanh"))


class Embedder(nn.Module):
    """A number, by its 256 waves."""

    def __init__(self, width):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, numbers):
        return self.mlp(waves(numbers, 256, True))


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.scale_shift_table = nn.Parameter(torch.zeros(6, width))
        self.attn, self.cross_attn, self.mlp = nn.Module(), nn.Module(), Mapped(width, 4 * width, width)
        self.attn.qkv, self.attn.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.cross_attn.q_linear, self.cross_attn.kv_linear = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.cross_attn.proj = nn.Linear(width, width)

    def forward(self, x, words, modulation, heads):
        """One picture's tokens `[n, width]`, its words `[m, width]`, and `[6, width]` of the time."""
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.scale_shift_table + modulation
        q, k, v = self.attn.qkv(normal(x) * (1 + scale) + shift).chunk(3, 1)
        x = x + gate * self.attn.proj(attend(q, k, v, heads))
        k, v = self.cross_attn.kv_linear(words).chunk(2, 1)
        x = x + self.cross_attn.proj(attend(self.cross_attn.q_linear(x), k, v, heads))
        return x + gate_mlp * self.mlp(normal(x) * (1 + scale_mlp) + shift_mlp)


class OriginalPixArt(nn.Module):
    """`network(x, time, states, mask)`, 4 channels to 8; with `sizes` that for 1024 pixels, which is told the size."""

    def __init__(self, side=8, width=16, heads=2, depth=2, captions=16, sizes=False, zoom=1):
        super().__init__()
        self.heads, self.grid = heads, side // 2
        self.register_buffer("pos_embed", positions(side // 2, width, zoom))
        self.x_embedder, self.y_embedder, self.final_layer = nn.Module(), nn.Module(), nn.Module()
        self.x_embedder.proj = nn.Conv2d(4, width, 2, stride=2)
        self.t_embedder = Embedder(width)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.y_embedder.y_proj = Mapped(captions, width, width)
        self.y_embedder.y_embedding = nn.Parameter(torch.zeros(120, captions))
        if sizes:
            self.csize_embedder, self.ar_embedder = Embedder(width // 3), Embedder(width // 3)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.final_layer.linear = nn.Linear(width, 2 * 2 * 8)
        self.final_layer.scale_shift_table = nn.Parameter(torch.zeros(2, width))
        rng = torch.Generator().manual_seed(7)
        for p in self.parameters():
            p.data = 0.2 * torch.randn(p.shape, generator=rng)

    @torch.no_grad()
    def forward(self, x: Tensor, time: Tensor, states: Tensor, mask: Tensor, size=None, ratio=None) -> Tensor:
        t = self.t_embedder(time)
        if size is not None:
            height, width = (self.csize_embedder(size[:, k]) for k in range(2))
            t = t + torch.cat([height, width, self.ar_embedder(ratio[:, 0])], 1)
        modulation = self.t_block(t).unflatten(1, (6, -1))
        tokens = self.x_embedder.proj(x).flatten(2).transpose(1, 2) + self.pos_embed
        found = []
        for i in range(len(x)):
            one, words = tokens[i], self.y_embedder.y_proj(states[i][mask[i]])
            for block in self.blocks:
                one = block(one, words, modulation[i], self.heads)
            shift, scale = self.final_layer.scale_shift_table + t[i]
            patches = self.final_layer.linear(normal(one) * (1 + scale) + shift)
            patches = patches.reshape(self.grid, self.grid, 2, 2, 8)  # row, column, row and column in it, channel
            found.append(patches.permute(4, 0, 2, 1, 3).reshape(8, 2 * self.grid, 2 * self.grid))
        return torch.stack(found)
