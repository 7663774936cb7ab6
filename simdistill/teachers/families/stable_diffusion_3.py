"""Stable Diffusion 3 (Esser et al. 2024): a rectified flow transformer over text and picture tokens together."""

from typing import Any

import torch
from torch import Tensor

from simdistill.method.shapes import Data
from simdistill.method.text import Text, TextInput
from simdistill.teachers.diffusers_process import rectified_flow
from simdistill.teachers.families.family import WIDTH, Conditioning, Family, Pipeline, count_in, every_token
from simdistill.teachers.families.latents import Config, Size

CLIP, T5 = 77, 256  # tokens; their embeddings are concatenated


def _call(model: Any, state: Data, time: Tensor, text: Text, size: Size) -> Tensor:
    """Its times are 0 … 1000."""
    return model(
        state,
        encoder_hidden_states=text.prompt_embeds,
        pooled_projections=text.pooled,
        timestep=1000 * time,
        return_dict=False,
    )[0]


def _condition(config: Config) -> Conditioning:
    width, pooled = (count_in(config, f"{name}_dim", WIDTH) for name in ("joint_attention", "pooled_projection"))
    return Conditioning(TextInput(CLIP + T5, width, pooled))


def _encode(pipeline: Any, prompts: list[str], device: torch.device) -> Text:
    how = {"device": device, "do_classifier_free_guidance": False}
    embeds, _, pooled, _ = pipeline.encode_prompt(prompts, prompts, prompts, **how)
    return Text(embeds, every_token(embeds), pooled)


FAMILY = Family(
    "SD3Transformer2DModel",
    _condition,
    _call,
    process=rectified_flow,
    pipelines=(Pipeline("StableDiffusion3Pipeline", _encode, T5, "tokenizer_3"),),
)
