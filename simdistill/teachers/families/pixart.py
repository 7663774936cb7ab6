"""PixArt-alpha (Chen et al. 2023): a transformer that attends to T5's embeddings, without padding tokens."""

from typing import Any

import torch
from torch import Tensor

from simdistill.method.shapes import Data
from simdistill.method.text import Text, TextInput
from simdistill.teachers.families.family import WIDTH, Conditioning, Family, Pipeline, count_in
from simdistill.teachers.families.latents import Config, Size

TOKENS = 120


def _call(model: Any, state: Data, time: Tensor, text: Text, size: Size) -> Tensor:
    """The network for 1024 pixels also takes the picture's size and aspect ratio."""
    known: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
    if model.use_additional_conditions:
        height, width = size
        told = {"resolution": [height, width], "aspect_ratio": [height / width]}
        known = {name: state.new_tensor([row]).expand(len(state), -1) for name, row in told.items()}
    return model(
        state,
        encoder_hidden_states=text.prompt_embeds,
        encoder_attention_mask=text.attention_mask,
        timestep=time,
        added_cond_kwargs=known,
        return_dict=False,
    )[0]


def _condition(config: Config) -> Conditioning:
    return Conditioning(TextInput(TOKENS, count_in(config, "caption_channels", WIDTH)))


def _encode(pipeline: Any, prompts: list[str], device: torch.device) -> Text:
    embeds, mask, *_ = pipeline.encode_prompt(prompts, do_classifier_free_guidance=False, device=device)
    return Text(embeds, mask.bool())


FAMILY = Family(
    "PixArtTransformer2DModel",
    _condition,
    _call,
    pipelines=(Pipeline("PixArtAlphaPipeline", _encode, TOKENS, trimmed=True, exported=True),),
    formerly="ada_norm_single",
    unused=("caption_projection.y_embedding",),  # the unconditional embedding in training
)
