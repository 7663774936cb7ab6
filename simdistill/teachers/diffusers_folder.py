"""Teachers in diffusers' folders: UNet2DModel and class-conditional DiT, as `save_pretrained` writes them.

The networks are diffusers' own classes, filled from local files; nothing that a folder holds is executed. Their process
is variance preserving, with the levels of the scheduler's betas; whatever else a scheduler's configuration says, as how
to clip or to space steps, concerns samplers and not the teacher.
"""

import json
from collections.abc import Generator
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn

from simdistill.shapes import Condition, Data, Pictures
from simdistill.teachers.parametrisations import EpsilonPrediction, NearestTime, SamplePrediction, VelocityPrediction
from simdistill.validation import require

PREDICTIONS = {"epsilon": EpsilonPrediction, "v_prediction": VelocityPrediction, "sample": SamplePrediction}
SCHEDULERS = ("DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler")
"""Samplers of one and the same process: they name their betas alike."""

AUTOENCODERS = {"vae": "AutoencoderKL", "vqvae": "VQModel"}  # by their place in a pipeline's folder
HIGHEST = 160.0  # of DDPM's betas 157: above it a state is noise to within a percent, and a sampler's steps are wasted
DECODED = 8  # latents that the autoencoder is called with


class DiffusersNetwork(nn.Module):
    """A model of diffusers' as network(state, time, condition); the channels of a learned variance are dropped."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, state: Data, time: Tensor, condition: Condition = None) -> Data:
        """The prediction, of the shape of `state`; `condition` is None or class labels `[batch]`."""
        prediction = self.model(state, timestep=time, class_labels=condition, return_dict=False)[0]
        return prediction[:, : state.shape[1]]


class Decoder:
    """Latents to pictures by the autoencoder in `folder`, of diffusers' class `kind`, loaded when it is first asked."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.kind = folder, kind
        _check_class(_read_json(folder / "config.json"), folder, (kind,))

    @torch.no_grad()
    def __call__(self, latents: Data) -> Pictures:
        """Pictures in [-1, 1], where the latents are."""
        autoencoder: Any = self._autoencoder.to(latents.device)
        parts = (latents / autoencoder.config.scaling_factor).split(DECODED)
        return torch.cat([autoencoder.decode(part, return_dict=False)[0] for part in parts])

    @cached_property
    def _autoencoder(self) -> nn.Module:
        return _load(self.kind, self.folder)


def read_folder(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The denoiser in a diffusers folder, frozen, and what else a `Teacher` of it is told.

    The folder is a pipeline's (with unet/ or transformer/, scheduler/ and perhaps vae/), or that of the network itself
    with the scheduler's configuration in it or beside it. A DiT's null label is not used.

    Raises `ValueError` with the remedy if something is missing, damaged, or not of a known kind, and if diffusers is
    not installed.
    """
    inside = [folder / part for part in ("unet", "transformer") if (folder / part / "config.json").is_file()]
    network = inside[0] if inside else folder
    if not (network / "config.json").is_file():
        raise ValueError(
            f"teacher = '{folder}': no unet/config.json, transformer/config.json or config.json in it: "
            "must be a folder that diffusers' save_pretrained wrote"
        )
    config = _read_json(network / "config.json")
    kind = _kind(config, network)
    shape, classes = _shape(config, network), _classes(config, kind, network)
    root, scheduler = _scheduler(folder)
    adapter, levels = _process(scheduler)
    denoiser = adapter(DiffusersNetwork(_load(kind, network)), NearestTime(levels))
    sampled = levels[levels <= HIGHEST]
    facts: dict[str, Any] = {"shape": shape, "classes": classes, "decode": _decoder(root)}
    return denoiser, facts | {"sigma_min": float(sampled[0]), "sigma_max": float(sampled[-1])}


def _scheduler(folder: Path) -> tuple[Path, Path]:
    """The pipeline's folder, `folder` or the one around it, and the scheduler's configuration there."""
    for root in (folder, folder.resolve().parent):
        for path in (root / "scheduler" / "scheduler_config.json", root / "scheduler_config.json"):
            if path.is_file():
                return root, path
    raise ValueError(f"teacher = '{folder}': no scheduler/scheduler_config.json in it or beside it: copy it there")


def _decoder(root: Path) -> Decoder | None:
    """For the samples of a latent pipeline."""
    found = [part for part in AUTOENCODERS if (root / part / "config.json").is_file()]
    return Decoder(root / found[0], AUTOENCODERS[found[0]]) if found else None


def _kind(config: dict[str, Any], folder: Path) -> str:
    """The class of a network's configuration, by its present name."""
    if config.get("_class_name") == "Transformer2DModel" and config.get("norm_type") == "ada_norm_zero":
        return "DiTTransformer2DModel"  # before diffusers 0.29
    return _check_class(config, folder, ("UNet2DModel", "DiTTransformer2DModel"))


def _check_class(config: dict[str, Any], folder: Path, known: tuple[str, ...]) -> str:
    name = config.get("_class_name")
    require(name in known, f"{folder / 'config.json'}: _class_name", name, " or ".join(known))
    require(not config.get("quantization_config"), f"{folder}: quantization_config", "given", "absent: load it in full")
    return str(name)


def _shape(config: dict[str, Any], folder: Path) -> tuple[int, ...]:
    """`(channels, height, width)` of one sample."""
    path, size, channels = folder / "config.json", config.get("sample_size"), config.get("in_channels")
    returned = config.get("out_channels")
    sides: Any = [size, size] if isinstance(size, int) else size
    sound = isinstance(sides, list) and len(sides) == 2 and all(isinstance(side, int) for side in sides)
    require(sound, f"{path}: sample_size", size, "the height and width of the samples, as 32 or [32, 32]")
    require(isinstance(channels, int), f"{path}: in_channels", channels, "the channels of the samples")
    fits = returned in (None, channels, 2 * int(channels or 0))
    require(
        fits, f"{path}: out_channels", returned, f"{channels} as in_channels, or twice that with a learned variance"
    )
    return (int(channels or 0), *sides)


def _classes(config: dict[str, Any], kind: str, folder: Path) -> int:
    """The number of class labels: of a DiT its null label, the last of its embeddings, is none."""
    if kind == "DiTTransformer2DModel":
        return int(config.get("num_embeds_ada_norm") or 0)
    embedded = config.get("class_embed_type")
    require(embedded is None, f"{folder / 'config.json'}: class_embed_type", embedded, "null: labels are integers")
    return int(config.get("num_class_embeds") or 0)


def _process(path: Path) -> tuple[Any, Tensor]:
    """The adapter for what the network predicts, and the levels of its times, from the scheduler's configuration."""
    config = _read_json(path)
    scheduler, prediction = config.get("_class_name"), config.get("prediction_type", "epsilon")
    require(scheduler in SCHEDULERS, f"{path}: _class_name", scheduler, f"one of {', '.join(SCHEDULERS)}")
    require(prediction in PREDICTIONS, f"{path}: prediction_type", prediction, f"one of {', '.join(PREDICTIONS)}")
    return PREDICTIONS[prediction], _levels(config, path)


def _levels(config: dict[str, Any], path: Path) -> Tensor:
    """sigma_t = √((1 - a_t)/a_t), a_t = Π_{s<=t} (1 - beta_s), ascending, float64; the last may be infinite."""
    with _library() as diffusers:
        try:
            betas: Tensor = diffusers.DDPMScheduler.from_config(config).betas
        except Exception as error:  # whatever diffusers raises
            raise ValueError(f"{path}: betas cannot be read ({_short(error)})") from error
    levels = torch.expm1(-torch.log1p(-betas.double()).cumsum(0)).sqrt()
    rising = len(levels) > 1 and bool((levels.diff() > 0).all()) and 0 < float(levels[0]) < HIGHEST
    require(rising, f"{path}: betas", betas[:3].tolist(), "between 0 and 1")
    return levels


def _load(kind: str, folder: Path) -> nn.Module:
    """diffusers' class `kind` with exactly the weights in `folder`, float32, frozen; safetensors before .bin.

    A .bin is read by torch's restricted unpickler, which builds tensors and refuses everything else.
    """
    with _library() as diffusers:
        try:
            model, report = getattr(diffusers, kind).from_pretrained(
                str(folder),
                local_files_only=True,
                torch_dtype=torch.float32,
                low_cpu_mem_usage=False,  # or missing weights raise in accelerate's words
                output_loading_info=True,
            )
        except Exception as error:  # whatever diffusers raises
            raise ValueError(f"{folder}: cannot be read as a {kind} ({_short(error)})") from error
    odd = [f"{name} {what}" for what in ("missing", "unexpected", "mismatched") for name in report[f"{what}_keys"]]
    require(not odd, f"{folder}: weights", odd[:3], f"those of a {kind} of its config.json, no more and no less")
    return model.eval().requires_grad_(False)


@contextmanager
def _library() -> Generator[Any]:
    """diffusers, imported when it is needed (it takes seconds), without its remarks."""
    try:
        diffusers: Any = import_module("diffusers")
    except ImportError as error:
        raise ValueError('teacher: its library is missing; pip install "simdistill[diffusers]"') from error
    log = diffusers.utils.logging
    verbosity = log.get_verbosity()
    log.set_verbosity(log.CRITICAL)
    try:
        yield diffusers
    finally:
        log.set_verbosity(verbosity)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as JSON ({_short(error)})") from error
    require(isinstance(values, dict), str(path), values, "a JSON object")
    return values


def _short(error: Exception) -> str:
    return shorten(f"{type(error).__name__}: {error}", 300)
