"""Iterations' memory, in a process of its own: `memory_of_steps.py NETWORK SETTING …` prints megabytes."""

import gc
import json
import sys

import torch

from benchmarks import contenders, iteration, networks
from simdistill.method.denoisers import Preconditioned
from simdistill.networks.mlp import MLP
from simdistill.networks.unet import SongUNet

SETTINGS = {
    "plain": {},
    "shared samples": {"share_samples": True},
    "four parts": {"gradient_accumulation": 4},
    "four parts, shared samples": {"gradient_accumulation": 4, "share_samples": True},
    "blocks computed twice": {"gradient_checkpointing": True},
    "with momentum": {"betas": (0.9, 0.999)},
    "bf16": {"precision": "bf16"},
}


def _mlp(width=512, depth=4):
    return Preconditioned(MLP((1, 8, 8), width, depth), (1, 8, 8))


def _unet(width=32):
    return Preconditioned(SongUNet(16, 3, 3, 0, 0, width, (1, 2), num_blocks=1, attn_resolutions=(8,)), (3, 16, 16))


def _transformer():
    return Preconditioned(networks.PatchTransformer(16, width=128), (3, 16, 16))


NETWORKS = {
    "mlp": networks.Network("an MLP", _mlp, 512, 0.1, 1),
    "unet": networks.Network("a U-Net", _unet, 32, 0.5, 1),
    "wide mlp": networks.Network("an MLP with more weights than activations", lambda: _mlp(1024, 8), 512, 0.1, 1),
    "wide unet": networks.Network("a U-Net with many weights", lambda: _unet(96), 16, 0.5, 1),
    "transformer": networks.Network("a transformer", _transformer, 48, 0.5, 1),
}

if __name__ == "__main__":
    torch.manual_seed(0)
    iteration.NETWORKS.update(NETWORKS)
    contenders.SETTINGS.update(SETTINGS)
    found = []
    for setting in sys.argv[2:]:
        found.append(iteration.memory(sys.argv[1], setting))
        gc.collect()
    print(json.dumps(found))
