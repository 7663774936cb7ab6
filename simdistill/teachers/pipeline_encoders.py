"""The text encoders in a diffusers pipeline's folder, called as by the pipeline itself."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from simdistill.method.text import Text, TextInput
from simdistill.support.checks import require
from simdistill.support.json_text import read_json
from simdistill.support.libraries import library, short
from simdistill.teachers.diffusers_files import variant_of
from simdistill.teachers.families import pipelines

KNOWN = (["diffusers"], ["transformers"], [None])
"""Allowed libraries of a pipeline's parts; any other would be imported, or searched in the folder itself."""
LEFT_OUT = ("transformer", "unet", "vae", "safety_checker", "feature_extractor", "image_encoder")
"""Parts of a pipeline that encoding does not need."""


class PipelineEncoder:
    """Encodes prompts as `Text` with the encoders of the pipeline in `folder`; nothing in the folder is executed.

    The encoders' weights may be in a `checkpoint` of one file, a .safetensors. Raises `ValueError` if it is no pipeline
    of a known family, or its encoders are missing or damaged.
    """

    def __init__(
        self,
        folder: Path,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        checkpoint: Path | None = None,
    ) -> None:
        index, known = read_json(folder / "model_index.json"), pipelines()
        name = str(index.get("_class_name"))
        require(name in known, f"{folder / 'model_index.json'}: _class_name", name, f"one of {', '.join(known)}")
        self._about, self._device = known[name], torch.device(device)
        parts = {part: value for part, value in index.items() if isinstance(value, list) and part not in LEFT_OUT}
        strange = [f"{part} of {value[:1]}" for part, value in parts.items() if value[:1] not in KNOWN]
        require(not strange, f"{folder / 'model_index.json'}: parts", strange, "of diffusers or transformers")
        absent: dict[str, Any] = {part: None for part in LEFT_OUT if part in index}
        local = {"local_files_only": True, "torch_dtype": dtype, **absent}
        with library() as diffusers:
            kind = getattr(diffusers, name)
            try:
                self._pipeline: Any = (
                    kind.from_pretrained(str(folder), variant=_variant(folder), **local)
                    if checkpoint is None
                    else kind.from_single_file(str(checkpoint), config=str(folder), **local)
                )
            except Exception as error:  # whatever diffusers and transformers raise
                raise ValueError(f"{checkpoint or folder}: its text encoder cannot be read ({short(error)})") from error
        encoders = [part for part in parts if part.startswith("text_encoder")]
        missing = [part for part in encoders if getattr(self._pipeline, part, None) is None]
        require(
            not missing, f"{folder}: its text encoders", f"without {', '.join(missing)}", "there, as the pipeline's own"
        )
        for part in encoders:
            hollow = [name for name, p in getattr(self._pipeline, part).named_parameters() if p.is_meta]
            remedy = f"there, as {folder / part / 'config.json'} describes it"
            require(not hollow, f"{checkpoint or folder}: weights of its {part}", f"without {hollow[:1]}", remedy)
        self._pipeline.to(self._device)

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> Text:
        """The encoded prompts, on the CPU, float32."""
        with library():
            text = self._about.encode(self._pipeline, list(prompts), self._device).to("cpu")
        pooled = None if text.pooled is None else text.pooled.float()
        return Text(text.prompt_embeds.float(), text.attention_mask, pooled)

    def empty(self) -> Text:
        """The unconditional embedding of the pipeline's guidance: the empty prompt, or zeros if it says so (SDXL)."""
        text = self([""])
        if not self._pipeline.config.get("force_zeros_for_empty_prompt", False):
            return text
        pooled = None if text.pooled is None else torch.zeros_like(text.pooled)
        return Text(torch.zeros_like(text.prompt_embeds), text.attention_mask, pooled)

    def tokens(self, prompts: Sequence[str]) -> list[int]:
        """How many tokens each prompt has, before truncation to `limit`."""
        tokenizer: Any = getattr(self._pipeline, self._about.tokenizer)
        with library():
            return [len(ids) for ids in tokenizer(list(prompts), truncation=False, verbose=False).input_ids]

    @property
    def limit(self) -> int:
        """How many tokens of a prompt are kept."""
        return self._about.limit

    @property
    def trimmed(self) -> bool:
        """Whether padding tokens are masked for the network."""
        return self._about.trimmed

    @cached_property
    def text(self) -> TextInput:
        """The shape of what it returns, found by a first prompt."""
        sample = self([""])
        pooled = 0 if sample.pooled is None else sample.pooled.shape[1]
        return TextInput(sample.prompt_embeds.shape[1], sample.prompt_embeds.shape[2], pooled)


def _variant(pipeline: Path) -> str | None:
    """The variant of a pipeline's text encoders; `ValueError` if they differ in it."""
    found = {variant_of(part) for part in sorted(pipeline.glob("text_encoder*")) if part.is_dir()} - {None}
    require(len(found) <= 1, f"{pipeline}: variants of its text encoders", sorted(map(str, found)), "the same for all")
    return next(iter(found), None)
