"""FLUX.1 (Black Forest Labs 2024): a rectified flow transformer whose tokens are patches of 2×2 latents."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from simdistill.method.shapes import Data
from simdistill.method.text import Text, TextInput
from simdistill.teachers.diffusers_process import rectified_flow
from simdistill.teachers.families.family import (
    WIDTH,
    Conditioning,
    Family,
    Pipeline,
    count_in,
    every_token,
    picture_shape,
)
from simdistill.teachers.families.latents import Config, Size

TOKENS = 512
GUIDANCE = 3.5
"""The guidance input of a guidance-distilled network (FLUX.1-dev): its pipeline's default."""


def _call(model: Any, state: Data, time: Tensor, text: Text, size: Size) -> Tensor:
    channels, rows, columns = state.shape[1], state.shape[2] // 2, state.shape[3] // 2
    patches = state.unflatten(3, (columns, 2)).unflatten(2, (rows, 2)).permute(0, 2, 4, 1, 3, 5)
    place = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), -1)
    velocity: Tensor = model(
        patches.flatten(3).flatten(1, 2),
        encoder_hidden_states=text.prompt_embeds,
        pooled_projections=text.pooled,
        timestep=time,
        img_ids=pad(place.flatten(0, 1), (1, 0)).to(state),  # 0, row, column
        txt_ids=state.new_zeros(text.prompt_embeds.shape[1], 3),
        guidance=torch.full_like(time, GUIDANCE) if model.config.guidance_embeds else None,
        return_dict=False,
    )[0]
    patches = velocity.unflatten(2, (channels, 2, 2)).unflatten(1, (rows, columns)).permute(0, 3, 1, 4, 2, 5)
    return patches.flatten(4).flatten(2, 3)


def _condition(config: Config) -> Conditioning:
    width, pooled = (count_in(config, f"{name}_dim", WIDTH) for name in ("joint_attention", "pooled_projection"))
    return Conditioning(TextInput(TOKENS, width, pooled))


def _encode(pipeline: Any, prompts: list[str], device: torch.device) -> Text:
    embeds, pooled, _ = pipeline.encode_prompt(prompts, prompts, device=device)
    return Text(embeds, every_token(embeds), pooled)


FAMILY = Family(
    "FluxTransformer2DModel",
    _condition,
    _call,
    shape=partial(picture_shape, side=128, packed=4),  # its configuration has no size
    process=rectified_flow,
    pipelines=(Pipeline("FluxPipeline", _encode, TOKENS, "tokenizer_2"),),
)
