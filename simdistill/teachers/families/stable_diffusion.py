"""Stable Diffusion (Rombach et al. 2022) and SDXL (Podell et al. 2023): a U-Net that attends to CLIP's embeddings.

The U-Net also sees padding tokens, as in its pipelines.
"""

from typing import Any

import torch
from torch import Tensor

from simdistill.method.shapes import Data
from simdistill.method.text import Text, TextInput
from simdistill.support.checks import require
from simdistill.teachers.families.family import Conditioning, Family, Pipeline, every_token
from simdistill.teachers.families.latents import Config, Size

TOKENS = 77


def _call(model: Any, state: Data, time: Tensor, text: Text, size: Size) -> Tensor:
    """SDXL also takes a pooled embedding, and the size of a picture that is neither resized nor cropped."""
    whole = None
    if text.pooled is not None:
        sizes = state.new_tensor([[*size, 0, 0, *size]])
        whole = {"text_embeds": text.pooled, "time_ids": sizes.expand(len(state), -1)}
    return model(state, time, text.prompt_embeds, added_cond_kwargs=whole, return_dict=False)[0]


def _condition(config: Config) -> Conditioning:
    """The width of SDXL's pooled embedding is that of the joint input without the six numbers about the size."""
    for key in ("encoder_hid_dim_type", "class_embed_type"):
        require(config.get(key) is None, key, config.get(key), "absent: networks that are conditioned so are not known")
    added = config.get("addition_embed_type")
    known = "text_time, as in SDXL, or absent: networks that take an image or something else besides are not known"
    require(added in (None, "text_time"), "addition_embed_type", added, known)
    widths = config.get("cross_attention_dim") or 0
    distinct = {*widths} if isinstance(widths, list) else {widths}
    require(len(distinct) == 1, "cross_attention_dim", widths, "one number, or the same for all blocks")
    width, pooled = int(distinct.pop()), 0
    if added == "text_time":
        together = int(config["projection_class_embeddings_input_dim"])
        pooled = together - 6 * int(config["addition_time_embed_dim"])
    return Conditioning(TextInput(TOKENS, width, pooled))


def _encode(pipeline: Any, prompts: list[str], device: torch.device) -> Text:
    embeds, _ = pipeline.encode_prompt(prompts, device, 1, do_classifier_free_guidance=False)
    return Text(embeds, every_token(embeds))


def _encode_xl(pipeline: Any, prompts: list[str], device: torch.device) -> Text:
    embeds, _, pooled, _ = pipeline.encode_prompt(prompts, device=device, do_classifier_free_guidance=False)
    return Text(embeds, every_token(embeds), pooled)


FAMILY = Family(
    "UNet2DConditionModel",
    _condition,
    _call,
    pipelines=(
        Pipeline("StableDiffusionPipeline", _encode, TOKENS, exported=True),
        Pipeline("StableDiffusionXLPipeline", _encode_xl, TOKENS, exported=True),
    ),
    part="unet",
)
