"""The process of every kind of scheduler: its levels are diffusers' own, and Euler's steps over our denoiser, too."""

import json
import re

import numpy as np
import pytest
import torch
from tiny_models import euler, unet

from simdistill.teachers.diffusers_process import HIGHEST, SCHEDULERS, rectified_flow, scheduled
from simdistill.teachers.loading import load_teacher

diffusers = pytest.importorskip("diffusers")

FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
STEADY = {"use_karras_sigmas": True, "sigma_min": 0.002, "sigma_max": 700.0}
CONTINUOUS = {"timestep_type": "continuous", "prediction_type": "v_prediction", "beta_schedule": "scaled_linear"}
CONTINUOUS |= {"beta_start": 0.00085, "beta_end": 0.012}


def written(folder, name, **settings):
    """A scheduler's configuration, as a person might write it."""
    path = folder / "scheduler_config.json"
    path.write_text(json.dumps({"_class_name": name, **settings}))
    return path


# ---- levels


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize(
    "settings",
    [{}, {"beta_schedule": "scaled_linear", "beta_start": 0.001, "beta_end": 0.01}, {"num_train_timesteps": 50}],
    ids=["its-defaults", "betas", "steps"],
)
def test_the_levels_are_the_schedulers_own(tmp_path, name, settings):
    adapter, low, high = scheduled(written(tmp_path, name, **settings))
    own_class = getattr(diffusers, name.replace("DPMSolverSDE", "HeunDiscrete"))  # the SDE's needs torchsde
    a = own_class(**settings).alphas_cumprod
    levels = ((1 - a) / a).sqrt().double()
    ours = adapter(torch.nn.Identity()).time.sigmas
    torch.testing.assert_close(ours, levels, rtol=1e-3, atol=0)  # 1 - a has lost digits where a is close to 1 …
    torch.testing.assert_close(1 / (1 + ours**2), a.double(), rtol=2e-5, atol=0)  # … and a has not
    assert (low, high) == (ours[0].item(), ours[-1].item())


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("EulerDiscreteScheduler", {**CONTINUOUS, **STEADY}, (0.002, HIGHEST)),
        ("EulerDiscreteScheduler", {**CONTINUOUS, **STEADY, "sigma_max": 90}, (0.002, 90)),
        ("EulerDiscreteScheduler", {**CONTINUOUS, "sigma_min": 0.002}, (0.02917, 14.6146)),  # spaced by its betas
        ("EDMEulerScheduler", {}, (0.002, 80)),
        ("EDMDPMSolverMultistepScheduler", {"sigma_min": 0.01, "sigma_max": 120.0}, (0.01, 120)),
        ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, (1 / 999, HIGHEST)),
        ("FlowMatchHeunDiscreteScheduler", {"num_train_timesteps": 100}, (1 / 99, HIGHEST)),
        ("FlowMatchLCMScheduler", {}, (1 / 999, HIGHEST)),
        ("DPMSolverSinglestepScheduler", {**FLOW, "flow_shift": 3.0}, (1 / 999, HIGHEST)),
    ],
)
def test_the_range_is_the_schedulers_own(tmp_path, name, settings, expected):
    _, *found = scheduled(written(tmp_path, name, **settings))
    assert found == pytest.approx(expected, rel=1e-4)


# ---- samples


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("EulerDiscreteScheduler", CONTINUOUS),
        ("EulerDiscreteScheduler", {**CONTINUOUS, **STEADY, "sigma_max": 3.0}),
        ("EulerDiscreteScheduler", {"timestep_type": "continuous"}),  # which it ignores for epsilon
        ("EDMEulerScheduler", {"sigma_max": 3.0}),
        ("EDMEulerScheduler", {"sigma_max": 3.0, "sigma_data": 1.0, "prediction_type": "v_prediction"}),
        ("EDMEulerScheduler", {"sigma_max": 3.0, "sigma_schedule": "exponential"}),
        ("EDMDPMSolverMultistepScheduler", {"sigma_max": 3.0, "solver_order": 1}),
        ("DPMSolverSinglestepScheduler", {"solver_order": 1}),
        ("UniPCMultistepScheduler", {"solver_order": 1, "disable_corrector": [0, 1, 2, 3]}),
        ("UniPCMultistepScheduler", {"solver_order": 1, "disable_corrector": [0, 1, 2, 3], **FLOW}),
        ("FlowMatchEulerDiscreteScheduler", {}),
    ],
)  # fmt: skip
def test_eulers_samples_are_the_schedulers_own(tmp_path, name, settings, rng):
    """From diffusers' first level down: all of these are linear in x_0 and eps, or straight."""
    if "beta_start" not in settings:  # levels 0.03 … 1.4, so that a random network's samples stay small
        settings = {"num_train_timesteps": 100, **settings}
    model, sampler = unet(), getattr(diffusers, name)(**settings)
    model.save_pretrained(tmp_path / "unet")
    sampler.save_pretrained(tmp_path / "scheduler")
    levels, start, theirs = their_sample(sampler, model, torch.randn(3, 3, 8, 8, generator=rng))
    ours = euler(load_teacher(str(tmp_path)), start, levels, None)
    assert ((ours - theirs).norm() / theirs.norm()).item() < 2e-5


@torch.no_grad()
def their_sample(sampler, model, z):
    """Its levels; the first state, as x_0 + sigma eps; its sample."""
    flow = "Flow" in type(sampler).__name__ or sampler.config.get("use_flow_sigmas")
    sampler.set_timesteps(**({"sigmas": np.array([0.8, 0.5, 0.2])} if flow else {"num_inference_steps": 4}))
    levels = sampler.sigmas.double()[: len(sampler.timesteps)]
    if flow:
        levels = levels / (1 - levels)
        scale = 1 + levels[0]
    else:  # the states of Euler and EDM are x itself
        scale = torch.ones(()) if "Euler" in type(sampler).__name__ or "EDM" in type(sampler).__name__ else (
            (1 + levels[0] ** 2).sqrt()
        )  # fmt: skip
    x = start = z * levels[0].float() / scale.float()
    for t in sampler.timesteps:
        state = x if flow else sampler.scale_model_input(x, t)
        x = sampler.step(model(state, t).sample, t, x).prev_sample
    return levels.tolist(), start * scale.float(), x


# ---- refusals


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("CMStochasticIterativeScheduler", {}, "_class_name = 'CMStochasticIterativeScheduler': must be one of DDPM"),
        ("DDPMScheduler", {"prediction_type": "score"}, "prediction_type = 'score': must be one of epsilon, v_pred"),
        ("EDMEulerScheduler", {"prediction_type": "sample"}, "prediction_type = 'sample': must be one of epsilon, v_"),
        ("EDMEulerScheduler", {"sigma_data": "a"}, "sigma_data = 'a': must be float"),
        ("EDMEulerScheduler", {"sigma_min": 90}, "sigma_min = 90: must be above 0 and below sigma_max"),
        ("UniPCMultistepScheduler", {"prediction_type": "flow_prediction"}, "use_flow_sigmas = None: must be true"),
        ("UniPCMultistepScheduler", {"use_flow_sigmas": True}, "use_flow_sigmas = True: must be false without flow"),
        ("FlowMatchEulerDiscreteScheduler", {"invert_sigmas": True}, "invert_sigmas = True: must be false"),
        ("FlowMatchEulerDiscreteScheduler", {"num_train_timesteps": "x"}, "num_train_timesteps = 'x': must be int"),
        ("FlowMatchEulerDiscreteScheduler", {"num_train_timesteps": 1}, "num_train_timesteps = 1: must be at least 2"),
        ("DDPMScheduler", {"num_train_timesteps": [3]}, "num_train_timesteps = [3]: must be int"),
        ("DDPMScheduler", {"trained_betas": "abc"}, "betas cannot be read"),
        ("PNDMScheduler", {"num_train_timesteps": 0}, "num_train_timesteps = 0: must be a whole number from 1"),
    ],
)
def test_what_a_scheduler_cannot_have(tmp_path, name, settings, message):
    path = written(tmp_path, name, **settings)
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        scheduled(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_flows_network_wants_a_flow_of_any_sampler(tmp_path):
    assert rectified_flow(written(tmp_path, "UniPCMultistepScheduler", **FLOW))[1:] == (1 / 999, HIGHEST)
    with pytest.raises(ValueError, match=r"_class_name = 'UniPC.*must be one of FlowMatchEuler.*flow_prediction"):
        rectified_flow(written(tmp_path, "UniPCMultistepScheduler"))
