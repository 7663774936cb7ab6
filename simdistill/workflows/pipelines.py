"""Exporting a text-to-image student as a diffusers pipeline, for `from_pretrained` and one inference step."""

import json
import shutil
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from simdistill.method.generator import Generator
from simdistill.method.samplers import noise_from_seeds
from simdistill.method.text import Text
from simdistill.support.checks import require
from simdistill.support.files import check_output, temporary_folder, write_atomically
from simdistill.support.json_text import read_json
from simdistill.support.libraries import library
from simdistill.teachers.diffusers_files import load_model
from simdistill.teachers.diffusers_process import PREDICTIONS
from simdistill.teachers.families import DiffusersNetwork, pipelines
from simdistill.teachers.teacher import Teacher
from simdistill.workflows.exporting import CHECK_SEED, TOLERANCE, Exported
from simdistill.workflows.models import folder_teacher, load_generator

CHECKED = 3  # compared samples


def export_pipeline(
    out: str | Path, path: Path | None = None, teacher: Teacher | None = None, ema: int = 0
) -> Exported:
    """Write the student of the run `out` as a folder of its teacher's pipeline, by default `pipeline` in the run's.

    Network and scheduler are the student's; the rest is copied. One Euler step from sigma_init to 0,
    x - sigma_init F(x / √(1 + sigma_init²)) with x = sigma_init z, is the generator [B.14]. The scheduler is therefore
    an Euler scheduler whose only level is sigma_init, at the network's timestep for it. Before the folder is kept, its
    samples are compared with the generator's.

    Raises `ValueError` if the run's teacher is not such a pipeline, the student takes several steps, the folder exists,
    or the samples differ by more than 1e-4.
    """
    path = path or Path(out) / (f"pipeline-ema-{ema}" if ema else "pipeline")
    require(not path.exists(), "--out", str(path), "a new folder: it exists already")
    teacher = teacher or folder_teacher(out)
    source = Path("" if teacher is None else teacher.asked.encoder)
    if teacher is None or teacher.text is None or not (source / "model_index.json").is_file():
        other = f"`simdistill export {quote(str(out))} --to safetensors` is for any other (docs/export.md)"
        why = f"that of {out} is none; {other}"
        raise ValueError(f"--to = 'diffusers': must be for a run whose teacher is a text-to-image pipeline; {why}")
    generator, _ = load_generator(out, teacher, ema)
    index = read_json(source / "model_index.json")
    name, known = index.get("_class_name"), [name for name, about in pipelines().items() if about.exported]
    require(name in known, "--to diffusers: the teacher's pipeline", name, f"one of {', '.join(known)}")
    steps = len(generator.levels)
    process = type(generator.denoiser).__name__
    known = [kind.__name__ for kind in PREDICTIONS.values()]
    require(process in known, "--to diffusers: the teacher's prediction", process, f"one of {', '.join(known)}")
    require(steps == 1, "--to diffusers: steps of the student", steps, "1: pipelines space several steps evenly")
    check_output(path, folder=True)
    with temporary_folder(path) as temporary:
        folder, part = temporary / path.name, _network(generator).family.part
        for other in (name for name in index if (source / name).is_dir() and name not in (part, "scheduler")):
            shutil.copytree(source / other, folder / other)
        _write(generator, folder)
        index["scheduler"] = ["diffusers", "EulerDiscreteScheduler"]
        write_atomically(folder / "model_index.json", json.dumps(index, indent=2).encode())
        difference = _difference(generator, teacher.shape, teacher.text.blank(CHECKED), folder)
        require(difference <= TOLERANCE, f"{path}: difference from the generator", difference, f"at most {TOLERANCE}")
        folder.rename(path)
    return Exported(path, {"pipeline": name, "num_inference_steps": 1, "guidance_scale": 1.0}, difference)


def _network(generator: Generator) -> DiffusersNetwork:
    adapter: Any = generator.denoiser
    return adapter.network


def _write(generator: Generator, folder: Path) -> None:
    """Write the student's network and its scheduler: equal betas, whose last level is sigma_init at its timestep."""
    adapter: Any = generator.denoiser
    network = _network(generator)
    model: Any = network.model
    sigma = torch.tensor(generator.levels, dtype=torch.float64)
    steps = int(adapter.time(sigma)[0]) + 1
    beta = float(-torch.expm1(-torch.log1p(sigma**2) / steps))  # (1 - beta)^steps = 1 / (1 + sigma²)
    prediction = next(name for name, kind in PREDICTIONS.items() if isinstance(adapter, kind))
    with library() as diffusers:
        diffusers.EulerDiscreteScheduler(
            num_train_timesteps=steps,
            trained_betas=[beta] * steps,
            prediction_type=prediction,
            timestep_spacing="trailing",
        ).save_pretrained(folder / "scheduler")
        model.save_pretrained(folder / network.family.part)


@torch.no_grad()
def _difference(generator: Generator, shape: tuple[int, ...], blank: Text, folder: Path) -> float:
    """The largest difference between samples of the generator and of the folder's pipeline in one step.

    For random text in the form of `blank`, one row per sample.
    """
    z, rng = noise_from_seeds(range(CHECK_SEED, CHECK_SEED + CHECKED), shape), torch.Generator().manual_seed(0)
    pooled = None if blank.pooled is None else torch.randn(blank.pooled.shape, generator=rng)
    text = Text(torch.randn(blank.prompt_embeds.shape, generator=rng), blank.attention_mask, pooled)
    own = _network(generator)
    network = DiffusersNetwork(load_model(own.family.network, folder / own.family.part), own.family, own.size)
    with library() as diffusers:
        scheduler: Any = diffusers.EulerDiscreteScheduler.from_pretrained(folder / "scheduler")
        scheduler.set_timesteps(1)
        (time,) = scheduler.timesteps
        latents = z * scheduler.init_noise_sigma
        prediction = network(scheduler.scale_model_input(latents, time), time.expand(CHECKED), text)
        samples = scheduler.step(prediction, time, latents).prev_sample
    return float((samples - generator(z, text)).abs().max())
