"""The text encoders in a diffusers pipeline's folder, as the pipeline itself calls them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simdistill.method.text import Text, TextInput
from simdistill.support.checks import require
from simdistill.support.libraries import library, short
from simdistill.teachers.diffusers_files import read_json


@dataclass(frozen=True)
class _Way:
    """How a pipeline encodes prompts: `encode(pipeline, prompts, device)` gives states, mask and pooled vectors.

    `tokenizer` is the one that cuts prompts, to how many tokens, `limit`; `trimmed` says that the network does not see
    those that only fill a row.
    """

    encode: Callable[[Any, list[str], torch.device], tuple[Tensor, Tensor | None, Tensor | None]]
    tokenizer: str
    limit: int
    trimmed: bool = False


def _pixart(pipeline: Any, prompts: list[str], device: torch.device) -> tuple[Tensor, Tensor | None, Tensor | None]:
    states, mask, *_ = pipeline.encode_prompt(prompts, do_classifier_free_guidance=False, device=device)
    return states, mask, None


def _clip(pipeline: Any, prompts: list[str], device: torch.device) -> tuple[Tensor, Tensor | None, Tensor | None]:
    states, _ = pipeline.encode_prompt(prompts, device, 1, do_classifier_free_guidance=False)
    return states, None, None


def _sdxl(pipeline: Any, prompts: list[str], device: torch.device) -> tuple[Tensor, Tensor | None, Tensor | None]:
    states, _, pooled, _ = pipeline.encode_prompt(prompts, device=device, do_classifier_free_guidance=False)
    return states, None, pooled


def _sd3(pipeline: Any, prompts: list[str], device: torch.device) -> tuple[Tensor, Tensor | None, Tensor | None]:
    again = {"device": device, "do_classifier_free_guidance": False}
    states, _, pooled, _ = pipeline.encode_prompt(prompts, prompts, prompts, **again)
    return states, None, pooled


def _flux(pipeline: Any, prompts: list[str], device: torch.device) -> tuple[Tensor, Tensor | None, Tensor | None]:
    states, pooled, _ = pipeline.encode_prompt(prompts, prompts, device=device)
    return states, None, pooled


# fmt: off
WAYS = {
    "PixArtAlphaPipeline":       _Way(_pixart, "tokenizer",   120, trimmed=True),
    "StableDiffusionPipeline":   _Way(_clip,   "tokenizer",    77),
    "StableDiffusionXLPipeline": _Way(_sdxl,   "tokenizer",    77),
    "StableDiffusion3Pipeline":  _Way(_sd3,    "tokenizer_3", 256),
    "FluxPipeline":              _Way(_flux,   "tokenizer_2", 512),
}
# fmt: on
"""By the class that a folder's model_index.json names."""
KNOWN = (["diffusers"], ["transformers"], [None])
"""Libraries of a pipeline's parts; another would be imported, or looked for in the folder itself."""
LEFT_OUT = ("transformer", "unet", "vae", "safety_checker", "feature_extractor", "image_encoder")
"""Parts of a pipeline that encoding needs none of."""


class PipelineEncoder:
    """Prompts to `Text`, by the encoders of the pipeline in `folder`; nothing that the folder holds is executed.

    Raises `ValueError` if it is no pipeline of a known kind, or its encoders are missing or damaged.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        index = read_json(folder / "model_index.json")
        name = str(index.get("_class_name"))
        require(name in WAYS, f"{folder / 'model_index.json'}: _class_name", name, f"one of {', '.join(WAYS)}")
        self._way, self._device = WAYS[name], torch.device(device)
        parts = {part: value for part, value in index.items() if isinstance(value, list) and part not in LEFT_OUT}
        strange = [f"{part} of {value[:1]}" for part, value in parts.items() if value[:1] not in KNOWN]
        require(not strange, f"{folder / 'model_index.json'}: parts", strange, "of diffusers or transformers")
        absent: dict[str, Any] = {part: None for part in LEFT_OUT if part in index}
        with library() as diffusers:
            try:
                self._pipeline: Any = getattr(diffusers, name).from_pretrained(
                    str(folder), local_files_only=True, torch_dtype=dtype, **absent
                )
            except Exception as error:  # whatever diffusers and transformers raise
                raise ValueError(f"{folder}: its text encoder cannot be read ({short(error)})") from error
        encoders = [part for part in parts if part.startswith("text_encoder")]
        missing = [part for part in encoders if getattr(self._pipeline, part, None) is None]
        require(
            not missing, f"{folder}: its text encoders", f"without {', '.join(missing)}", "there, as the pipeline's own"
        )
        self._pipeline.to(self._device)
        self.trimmed = self._way.trimmed

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> Text:
        """The encoded prompts, on the CPU, float32."""
        with library():
            states, mask, pooled = self._way.encode(self._pipeline, list(prompts), self._device)
        counted = torch.ones(states.shape[:2], dtype=torch.bool) if mask is None else mask.bool().cpu()
        return Text(states.float().cpu(), counted, None if pooled is None else pooled.float().cpu())

    def empty(self) -> Text:
        """What the pipeline's own guidance takes for no prompt: the empty one, or zeros where it says so (SDXL)."""
        text = self([""])
        if not self._pipeline.config.get("force_zeros_for_empty_prompt", False):
            return text
        pooled = None if text.pooled is None else torch.zeros_like(text.pooled)
        return Text(torch.zeros_like(text.states), text.mask, pooled)

    def tokens(self, prompts: Sequence[str]) -> list[int]:
        """How many tokens each prompt has, before it is cut to `limit`."""
        tokenizer: Any = getattr(self._pipeline, self._way.tokenizer)
        with library():
            return [len(ids) for ids in tokenizer(list(prompts), truncation=False, verbose=False).input_ids]

    @property
    def limit(self) -> int:
        """How many tokens of a prompt are kept."""
        return self._way.limit

    @cached_property
    def text(self) -> TextInput:
        """The form of what it returns, by a first prompt."""
        sample = self([""])
        pooled = 0 if sample.pooled is None else sample.pooled.shape[1]
        return TextInput(sample.states.shape[1], sample.states.shape[2], pooled)
