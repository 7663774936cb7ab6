"""Stable Diffusion (Rombach et al. 2022) and SDXL (Podell et al. 2023): a U-Net that attends to CLIP's embeddings.

The U-Net also sees padding tokens, as in its pipelines.
"""

from typing import Any

import torch
from torch import Tensor

from simdistill.method.shapes import Data
from simdistill.method.text import Text, TextInput
from simdistill.support.checks import require
from simdistill.teachers.families.family import WIDTH, Conditioning, Family, Pipeline, count_in, every_token
from simdistill.teachers.families.latents import Config, Size

TOKENS = 77
_LABELS = "networks that take class labels or the like beside text are not known"
_EMBEDDINGS = "networks that take other embeddings than CLIP's, such as an image's, are not known"
_GUIDED = (
    "networks with guidance embedded, such as latent consistency models, are no denoisers: give the model that it was "
    "distilled from"
)
OTHERS = {
    "class_embed_type": _LABELS,
    "num_class_embeds": _LABELS,
    "encoder_hid_dim_type": _EMBEDDINGS,
    "encoder_hid_dim": _EMBEDDINGS,
    "dual_cross_attention": _EMBEDDINGS,
    "time_cond_proj_dim": _GUIDED,
}
"""Settings that must be absent: networks with them are called otherwise."""


def _call(model: Any, state: Data, time: Tensor, text: Text, size: Size) -> Tensor:
    """SDXL also takes a pooled embedding, and the size of a picture that is neither resized nor cropped."""
    whole = None
    if text.pooled is not None:
        sizes = state.new_tensor([[*size, 0, 0, *size]])
        whole = {"text_embeds": text.pooled, "time_ids": sizes.expand(len(state), -1)}
    return model(state, time, text.prompt_embeds, added_cond_kwargs=whole, return_dict=False)[0]


def _condition(config: Config) -> Conditioning:
    """The width of SDXL's pooled embedding is that of the joint input without the six numbers about the size."""
    for key, what in OTHERS.items():
        require(not config.get(key), key, config.get(key), f"absent: {what}")
    added = config.get("addition_embed_type")
    known = "text_time, as in SDXL, or absent: networks that take an image or something else besides are not known"
    require(added in (None, "text_time"), "addition_embed_type", added, known)
    widths = config.get("cross_attention_dim")
    same = isinstance(widths, list) and len(widths) > 0 and widths == widths[:1] * len(widths)
    one = widths[0] if isinstance(widths, list) and same else widths
    require(not isinstance(one, list), "cross_attention_dim", widths, "one number, or the same for all blocks")
    width, pooled = count_in({"cross_attention_dim": one}, "cross_attention_dim", WIDTH), 0
    if added == "text_time":
        keys = ("projection_class_embeddings_input_dim", "addition_time_embed_dim")
        together, six = (count_in(config, key, "given with addition_embed_type text_time, as in SDXL") for key in keys)
        pooled = together - 6 * six
        remedy = f"above 6 addition_time_embed_dim, which is {6 * six}: the rest is the pooled embedding"
        require(pooled > 0, keys[0], together, remedy)
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
