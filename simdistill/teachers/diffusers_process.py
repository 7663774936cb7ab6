"""The process of a diffusers scheduler's configuration: the prediction type, and the noise levels of its timesteps.

A scheduler is a sampler. Its name does not matter, nor does what concerns sampling alone, such as clipping, spacing or
shifting of steps: the process is read from the betas, the prediction type, or EDM's settings.
"""

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from simdistill.config.recipes import Levels
from simdistill.method.preconditioning import EDMScaling
from simdistill.support.checks import require
from simdistill.support.json_text import read_json
from simdistill.support.libraries import library, short
from simdistill.teachers.diffusers_settings import check_settings
from simdistill.teachers.prediction_types import (
    EDMPrediction,
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
    "DDPMScheduler", "DDPMParallelScheduler", "DDIMScheduler", "DDIMParallelScheduler", "DDIMInverseScheduler",
    "PNDMScheduler", "LMSDiscreteScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler", "DPMSolverMultistepInverseScheduler", "DPMSolverSinglestepScheduler",
    "DPMSolverSDEScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler", "SASolverScheduler", "LCMScheduler",
    "TCDScheduler",
)  # fmt: skip
"""Samplers of the same variance-preserving process, with the same names for their betas (of differing defaults)."""
FLOW_SCHEDULERS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler")
"""Samplers of a rectified flow; so are those above whose prediction type is `flow_prediction`."""
EDM_SCHEDULERS = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
"""Samplers of networks in the preconditioning of Karras et al. (2022), such as Playground's and CosXL."""
BETAS = (
    "num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "trained_betas", "rescale_betas_zero_snr",
)  # fmt: skip
"""The settings of the betas."""
HIGHEST = 160.0  # of DDPM's betas 157: above it a state is noise to within 1 %, and sampling steps are wasted
MOST_TIMES = 100_000
LINEAR = {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02, "num_train_timesteps": 1000}


def scheduled(path: Path, levels: Levels = "scheduler") -> Process:
    """The process of the scheduler's configuration in `path`, for a network that is called at its timesteps.

    It is variance-preserving, EDM's, or a rectified flow. `levels` are the scheduler's own or, for PixArt's linear
    betas, the paper's [B.13]. Raises `ValueError` for another kind of scheduler, or invalid settings.
    """
    config = _read(path, (*SCHEDULERS, *EDM_SCHEDULERS, *FLOW_SCHEDULERS))
    if levels == "paper":
        betas = {name: config.get(name) for name in LINEAR}
        linear = config["_class_name"] in SCHEDULERS and betas == LINEAR and not config.get("trained_betas")
        require(linear, f'teacher-levels = "paper", for the betas of {path}', betas, f"those of PixArt, {LINEAR}")
    if _is_flow(config):
        steps, low, high = _flow(config, path)
        return partial(FlowPrediction, steps=steps), low, high
    if config["_class_name"] in EDM_SCHEDULERS or _is_continuous(config):
        return _edm(config, path)
    prediction = _prediction(config, path, PREDICTIONS)
    what = "false without flow_prediction"
    require(not config.get("use_flow_sigmas"), f"{path}: use_flow_sigmas", config.get("use_flow_sigmas"), what)
    table = paper_levels() if levels == "paper" else _levels(config, path)
    sampled = table[table <= HIGHEST]
    adapter, time = PREDICTIONS[prediction], NearestTime(table)
    return lambda network: adapter(network, time), float(sampled[0]), float(sampled[-1])


def rectified_flow(path: Path, levels: Levels = "scheduler") -> Process:
    """The rectified flow of the scheduler's configuration in `path`, for a network that predicts its velocity.

    The network is called at times in (0, 1). Raises `ValueError` for another kind of scheduler, and for the paper's
    `levels`: a flow has no table of levels.
    """
    config = _read(path, (*FLOW_SCHEDULERS, *SCHEDULERS))
    kinds = f"one of {', '.join(FLOW_SCHEDULERS)}, or have the prediction type flow_prediction"
    require(_is_flow(config), f"{path}: _class_name", config["_class_name"], kinds)
    require(levels == "scheduler", "teacher-levels", levels, '"scheduler": a rectified flow has no table of levels')
    _, low, high = _flow(config, path)
    return FlowPrediction, low, high


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
    check_settings(config, str(scheduler), path)
    steps = config.get("num_train_timesteps", 1000)
    sound = isinstance(steps, int) and not isinstance(steps, bool) and 1 <= steps <= MOST_TIMES
    require(sound, f"{path}: num_train_timesteps", steps, f"a whole number from 1 to {MOST_TIMES:,}")
    return config


def _prediction(config: dict[str, Any], path: Path, known: Collection[str]) -> str:
    prediction = config.get("prediction_type", "epsilon")
    require(prediction in known, f"{path}: prediction_type", prediction, f"one of {', '.join(known)}")
    return str(prediction)


def _is_flow(config: dict[str, Any]) -> bool:
    return config["_class_name"] in FLOW_SCHEDULERS or config.get("prediction_type") == "flow_prediction"


def _is_continuous(config: dict[str, Any]) -> bool:
    """Whether the network takes ln(sigma)/4 for its time, as EDM's do; diffusers ignores it for other predictions."""
    return config.get("timestep_type") == "continuous" and config.get("prediction_type") == "v_prediction"


def _flow(config: dict[str, Any], path: Path) -> tuple[float, float, float]:
    """The number of timesteps, and the lowest and highest level: the first one's, s = 1/steps, and `HIGHEST`."""
    require(not config.get("invert_sigmas"), f"{path}: invert_sigmas", True, "false: time 1 is noise")
    if config["_class_name"] not in FLOW_SCHEDULERS:
        given = config.get("use_flow_sigmas")
        require(given is True, f"{path}: use_flow_sigmas", given, "true with the prediction type flow_prediction")
    steps = _number(config, path, "num_train_timesteps", 1000)
    require(steps >= 2, f"{path}: num_train_timesteps", steps, "at least 2")
    return steps, 1 / (steps - 1), HIGHEST


def _edm(config: dict[str, Any], path: Path) -> Process:
    """EDM's preconditioning, whose output `v_prediction` negates; of a velocity in continuous time, sigma_data is 1."""
    negated = _prediction(config, path, ("epsilon", "v_prediction")) == "v_prediction"
    if _is_continuous(config):
        scaling, (low, high) = EDMScaling(1.0), _ends(config, path)
    else:
        scaling = EDMScaling(_number(config, path, "sigma_data", 0.5))
        low, high = (_number(config, path, f"sigma_{end}", value) for end, value in (("min", 0.002), ("max", 80.0)))
    require(0 < low < high, f"{path}: sigma_min", low, "above 0 and below sigma_max")
    return partial(EDMPrediction, scaling=scaling, negated=negated), low, min(high, HIGHEST)


def _ends(config: dict[str, Any], path: Path) -> tuple[float, float]:
    """The range of the Euler scheduler: of its settings, if it spaces levels on its own, else that of its betas."""
    table = _levels(config, path)
    ends = float(table[0]), float(table[-1])
    if not any(config.get(f"use_{kind}_sigmas") for kind in ("karras", "exponential", "beta")):
        return ends
    low, high = (None if config.get(f"sigma_{end}") is None else f"sigma_{end}" for end in ("min", "max"))
    return (
        ends[0] if low is None else _number(config, path, low, 0),
        ends[1] if high is None else _number(config, path, high, 0),
    )


def _number(config: dict[str, Any], path: Path, name: str, default: float) -> float:
    value = config.get(name, default)
    sound = isinstance(value, (int, float)) and value > 0
    require(sound, f"{path}: {name}", value, "a positive number")
    return value


def _levels(config: dict[str, Any], path: Path) -> Tensor:
    """Ascending, float64; the last may be infinite."""
    name = str(config["_class_name"])
    name = {"DPMSolverSDEScheduler": "HeunDiscreteScheduler"}.get(name, name)  # of the same defaults, without torchsde
    settings = {name: value for name, value in config.items() if name in BETAS}
    with library() as diffusers:
        try:  # by its own class, for its own defaults
            betas: Tensor = getattr(diffusers, name).from_config(settings).betas
        except Exception as error:  # whatever diffusers raises
            raise ValueError(f"{path}: betas cannot be read ({short(error)})") from error
    levels = _from_betas(betas.double().reshape(-1))
    rising = len(levels) > 1 and bool((levels.diff() > 0).all()) and 0 < float(levels[0]) < HIGHEST
    require(rising, f"{path}: betas", betas.reshape(-1)[:3].tolist(), "between 0 and 1")
    return levels


def _from_betas(betas: Tensor) -> Tensor:
    """sigma_t = √((1 - a_t)/a_t), a_t = Π_{s<=t} (1 - beta_s)."""
    return torch.expm1(-torch.log1p(-betas).cumsum(0)).sqrt()
