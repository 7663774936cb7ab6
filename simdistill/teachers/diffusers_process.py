"""The process of a diffusers scheduler's configuration: the prediction type, and the noise levels of its timesteps.

Everything else in the configuration (clipping, spacing or shifting of steps) concerns samplers, not the teacher.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from simdistill.config.recipes import Levels
from simdistill.support.checks import require
from simdistill.support.libraries import library, short
from simdistill.teachers.diffusers_files import read_json
from simdistill.teachers.prediction_types import (
    EpsilonPrediction,
    FlowPrediction,
    NearestTime,
    SamplePrediction,
    VelocityPrediction,
)

Process: TypeAlias = tuple[Callable[[nn.Module], nn.Module], float, float]
"""An adapter of the network as a denoiser, and the lowest and highest noise level that samplers should use."""

PREDICTIONS = {"epsilon": EpsilonPrediction, "v_prediction": VelocityPrediction, "sample": SamplePrediction}
SCHEDULERS = (
    "DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler", "UniPCMultistepScheduler",
)  # fmt: skip
"""Samplers of the same variance-preserving process, with the same names for their betas."""
FLOW_SCHEDULER = "FlowMatchEulerDiscreteScheduler"
HIGHEST = 160.0  # of DDPM's betas 157: above it a state is noise to within 1 %, and sampling steps are wasted
LINEAR = {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02, "num_train_timesteps": 1000}


def scheduled(path: Path, levels: Levels = "scheduler") -> Process:
    """The variance-preserving process of the scheduler's configuration in `path`.

    `levels` are the scheduler's own or, for PixArt's linear betas, the paper's [B.13]. Raises `ValueError` for another
    kind of scheduler, or invalid betas.
    """
    config = _read(path, SCHEDULERS)
    prediction = config.get("prediction_type", "epsilon")
    require(prediction in PREDICTIONS, f"{path}: prediction_type", prediction, f"one of {', '.join(PREDICTIONS)}")
    if levels == "paper":
        betas = {name: config.get(name) for name in LINEAR}
        linear = betas == LINEAR and not config.get("trained_betas")
        require(linear, f'teacher-levels = "paper", for the betas of {path}', betas, f"those of PixArt, {LINEAR}")
    table = paper_levels() if levels == "paper" else _levels(config, path)
    sampled = table[table <= HIGHEST]
    adapter, time = PREDICTIONS[prediction], NearestTime(table)
    return lambda network: adapter(network, time), float(sampled[0]), float(sampled[-1])


def rectified_flow(path: Path, levels: Levels = "scheduler") -> Process:
    """The rectified flow of the scheduler's configuration in `path`, for a network that predicts its velocity.

    The network is called at times in (0, 1). Raises `ValueError` for another kind of scheduler, and for the paper's
    `levels`: a flow has no table of levels.
    """
    config = _read(path, (FLOW_SCHEDULER,))
    require(levels == "scheduler", "teacher-levels", levels, '"scheduler": a rectified flow has no table of levels')
    return FlowPrediction, 1 / (int(config.get("num_train_timesteps", 1000)) - 1), HIGHEST


def paper_levels() -> Tensor:
    """The paper's levels by time 0 … 999 [B.13], float64: from 0.0100 to 156.6, where PixArt's own end at 157.4.

    u_1000 = 0, u_{j-1}² + 1 = (u_j² + 1) / (1 - beta_j), beta_j = 0.02 - 0.0199 j/1000; time t has u_{999-t}. (The
    bound C_1 = 0.001 on 1 - beta_j never binds.) A linear schedule of 1,000 betas ends at 0.02, this just before.
    """
    return _from_betas(0.0001 + 0.0199 * torch.arange(1000, dtype=torch.float64) / 1000)


def _read(path: Path, known: tuple[str, ...]) -> dict[str, Any]:
    config = read_json(path)
    scheduler = config.get("_class_name")
    require(scheduler in known, f"{path}: _class_name", scheduler, f"one of {', '.join(known)}")
    return config


def _levels(config: dict[str, Any], path: Path) -> Tensor:
    """Ascending, float64; the last may be infinite."""
    with library() as diffusers:
        try:
            betas: Tensor = diffusers.DDPMScheduler.from_config(config).betas
        except Exception as error:  # whatever diffusers raises
            raise ValueError(f"{path}: betas cannot be read ({short(error)})") from error
    levels = _from_betas(betas.double())
    rising = len(levels) > 1 and bool((levels.diff() > 0).all()) and 0 < float(levels[0]) < HIGHEST
    require(rising, f"{path}: betas", betas[:3].tolist(), "between 0 and 1")
    return levels


def _from_betas(betas: Tensor) -> Tensor:
    """sigma_t = √((1 - a_t)/a_t), a_t = Π_{s<=t} (1 - beta_s)."""
    return torch.expm1(-torch.log1p(-betas).cumsum(0)).sqrt()
