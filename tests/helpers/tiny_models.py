"""Tiny networks of diffusers' with random weights, and how its samplers go in steps of our denoisers."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import torch

from simdistill.method.denoisers import residual

diffusers = pytest.importorskip("diffusers")

FLOWS = ("StableDiffusion3Pipeline", "FluxPipeline")
S = [0.8, 0.5, 0.2]  # levels of a rectified flow, x_s = (1 - s) x_0 + s eps
SHORT = {"num_train_timesteps": 20, "clip_sample": False}  # sigma_max = 0.48: a random network's samples stay small
UNET = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 4,
    "norm_num_groups": 4,
    "cross_attention_dim": 16,
}
SDXL = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 60}
FLOW = {"attention_head_dim": 8, "num_attention_heads": 2, "num_layers": 1, "joint_attention_dim": 16}
SD3 = {"sample_size": 8, "in_channels": 4, "out_channels": 4, "caption_projection_dim": 16, "pooled_projection_dim": 12}
FLUX = {"in_channels": 16, "num_single_layers": 1, "pooled_projection_dim": 12, "axes_dims_rope": (2, 2, 4)}
PIXART = {
    "sample_size": 8,
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 16,
    "caption_channels": 16,
}


@dataclass(frozen=True)
class Tiny:
    """A class of networks, the arguments of a small one, and its scheduler."""

    model: str
    arguments: dict[str, Any]
    scheduler: str = "DDIMScheduler"
    pooled: int = 0

    def build(self):
        torch.manual_seed(0)
        model = getattr(diffusers, self.model)(**self.arguments)
        for p in model.parameters():  # many start at zero, with which text would make no difference
            torch.nn.init.normal_(p, std=0.2)
        return model.eval()


TINY = {
    "PixArtAlphaPipeline": Tiny("PixArtTransformer2DModel", PIXART),
    "StableDiffusionPipeline": Tiny("UNet2DConditionModel", UNET),
    "StableDiffusionXLPipeline": Tiny("UNet2DConditionModel", UNET | SDXL, pooled=12),
    "StableDiffusion3Pipeline": Tiny("SD3Transformer2DModel", FLOW | SD3, "FlowMatchEulerDiscreteScheduler", 12),
    "FluxPipeline": Tiny("FluxTransformer2DModel", FLOW | FLUX, "FlowMatchEulerDiscreteScheduler", 12),
}


def autoencoder(**more):
    torch.manual_seed(0)
    return diffusers.AutoencoderKL(
        block_out_channels=(4, 4),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=2,
        **{"latent_channels": 4, "scaling_factor": 0.3, **more},
    )


@torch.no_grad()
def euler(teacher, x, sigmas, condition):
    """dx/dsigma = (x - d)/sigma: DDIM's steps, and Euler's of a rectified flow, both linear in x_0 and eps."""
    for sigma, following in pairwise([*sigmas, 0.0]):
        slope = -residual(teacher.denoiser, x, torch.full((len(x),), sigma), condition) / sigma
        x = x + (following - sigma) * slope
    return x


def start(scheduler, z):
    """Where a sampler whose steps are set begins with noise `z`, and its levels."""
    if "Flow" in type(scheduler).__name__:
        sigmas = [s / (1 - s) for s in scheduler.sigmas.tolist()[:-1]]
        return z * (1 + sigmas[0]), sigmas
    alphas = scheduler.alphas_cumprod.double()[scheduler.timesteps]
    sigmas = ((1 - alphas) / alphas).sqrt().tolist()
    return z * (1 + sigmas[0] ** 2) ** 0.5, sigmas


def unet(**more):
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        norm_num_groups=4,
        **more,
    )


def dit(**more):
    torch.manual_seed(0)
    model = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, num_layers=2, sample_size=8, out_channels=8,
        **{"num_embeds_ada_norm": 10, **more},
    )  # fmt: skip
    for p in model.parameters():  # its last layers and label embeddings start at zero or close to it
        torch.nn.init.normal_(p, std=0.2)
    return model


def scheduler(**more):
    return diffusers.DDIMScheduler(**{**SHORT, **more})


def save_pixels(folder):
    """A pipeline with an unconditional U-Net."""
    diffusers.DDIMPipeline(unet(), scheduler()).save_pretrained(folder)
    return folder


def save_latents(folder):
    """A pipeline with a DiT of ten classes and its autoencoder."""
    diffusers.DiTPipeline(dit(), autoencoder(), scheduler()).save_pretrained(folder)
    return folder
