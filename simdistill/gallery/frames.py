"""Moments of a training in two dimensions: where the samples are, and where the score difference would push them."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from simdistill.method.denoisers import Denoiser, residual
from simdistill.method.samplers import noise_from_seeds
from simdistill.support.files import write_atomically
from simdistill.training.trainer import DistillationTrainer

LEVEL = 0.3
"""The noise level of the arrows: modes at a distance of one are apart there, and have not lost sight of each other."""
EDGE = 2.75
"""What is decoded is the square [-EDGE, EDGE]²."""
ARROWS = 21  # a side
SAMPLES = 2000


@dataclass(frozen=True)
class Frame:
    """A moment: 2000 samples of the averaged generator, and -y = d_q - d_psi at `LEVEL` on the points of `grid`."""

    iteration: int
    samples: Float[Tensor, "samples 2"]
    pull: Float[Tensor, "points 2"]


def grid() -> Float[Tensor, "points 2"]:
    """The points that the arrows start at."""
    axis = torch.linspace(-EDGE, EDGE, ARROWS + 2)[1:-1]
    return torch.cartesian_prod(axis, axis)


@torch.no_grad()
def frame_of(trainer: DistillationTrainer, teacher: Denoiser) -> Frame:
    """The trainer's present moment."""
    z = noise_from_seeds(range(SAMPLES), (2,)).to(trainer.device)
    x_t = grid().to(trainer.device)
    sigma = torch.full((len(x_t),), LEVEL, device=trainer.device)
    pull = residual(teacher, x_t, sigma) - residual(trainer.networks["online"], x_t, sigma)
    return Frame(trainer.iteration, trainer.snapshot()(z).cpu(), pull.cpu())


def write_frame(folder: Path, frame: Frame) -> None:
    """Store a frame in a file of its own, by its iteration."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, samples=frame.samples.numpy(), pull=frame.pull.numpy())
    write_atomically(folder / f"{frame.iteration:08d}.npz", buffer.getvalue())


def read_frames(folder: Path) -> list[Frame]:
    """All frames of a folder, by iteration."""
    found: list[Frame] = []
    for path in sorted(folder.glob("[0-9]*.npz")):
        with np.load(path) as arrays:
            found.append(Frame(int(path.stem), torch.from_numpy(arrays["samples"]), torch.from_numpy(arrays["pull"])))
    return found
