"""Frames of a two-dimensional training: the samples, and where the score difference pushes them."""

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
"""The noise level of the arrows: there, modes at a distance of 1 are separate and still overlap a little."""
EDGE = 2.75
"""The square [-EDGE, EDGE]² is shown."""
ARROWS = 21  # per side
SAMPLES = 2000


@dataclass(frozen=True)
class Frame:
    """One frame: 2000 samples of the generator (EMA), and -y = d_q - d_psi at `LEVEL` on the points of `grid`."""

    iteration: int
    samples: Float[Tensor, "samples 2"]
    pull: Float[Tensor, "points 2"]


def grid() -> Float[Tensor, "points 2"]:
    """The points that the arrows start at."""
    axis = torch.linspace(-EDGE, EDGE, ARROWS + 2)[1:-1]
    return torch.cartesian_prod(axis, axis)


@torch.no_grad()
def frame_of(trainer: DistillationTrainer, teacher: Denoiser) -> Frame:
    """A frame of the trainer's present state."""
    z = noise_from_seeds(range(SAMPLES), (2,)).to(trainer.device)
    x_t = grid().to(trainer.device)
    sigma = torch.full((len(x_t),), LEVEL, device=trainer.device)
    pull = residual(teacher, x_t, sigma) - residual(trainer.networks["online"], x_t, sigma)
    return Frame(trainer.iteration, trainer.snapshot()(z).cpu(), pull.cpu())


def write_frame(folder: Path, frame: Frame) -> None:
    """Store a frame in its own file, named by its iteration."""
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
