"""Wan 2.1 (Wan Team 2025) as a user would add it: videos, in one file outside of the package."""

import os

from simdistill.method.text import Text, TextInput
from simdistill.teachers.diffusers_process import rectified_flow
from simdistill.teachers.families import Conditioning, Family, Latents, Pipeline, register
from simdistill.teachers.families.family import every_token
from simdistill.teachers.loading import load_teacher

TOKENS = 226
FRAMES, HEIGHT, WIDTH = 2, 8, 8  # of the latents: the network's configuration has none


def call(model, state, time, text, size):
    """Its times are 0 … 1000."""
    return model(state, 1000 * time, text.prompt_embeds, return_dict=False)[0]


def encode(pipeline, prompts, device):
    embeds, _ = pipeline.encode_prompt(prompts, do_classifier_free_guidance=False, device=device)
    return Text(embeds, every_token(embeds))


def size(config, shape):
    """Frames, height and width: the first latent frame is one frame, each other is four."""
    _, frames, height, width = shape
    return (1 + 4 * (frames - 1), 8 * height, 8 * width)


register(
    Family(
        "WanTransformer3DModel",
        condition=lambda config: Conditioning(TextInput(TOKENS, config["text_dim"])),
        call=call,
        shape=lambda config: (config["in_channels"], FRAMES, HEIGHT, WIDTH),
        process=rectified_flow,
        latents=(Latents("AutoencoderKLWan", size=size),),
        pipelines=(Pipeline("WanPipeline", encode, TOKENS),),
    )
)


def teacher():
    """For `--teacher wan:teacher`."""
    return load_teacher(os.environ["WAN"])
