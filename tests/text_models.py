"""Tiny text-to-image networks of diffusers', with random weights, by the name of their pipeline's class."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from simdistill.denoisers import residual

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

    def build(self, diffusers):
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


def autoencoder(diffusers, **more):
    torch.manual_seed(0)
    return diffusers.AutoencoderKL(
        block_out_channels=(4, 4),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=2,
        **{"scaling_factor": 0.3, **more},
    )


@torch.no_grad()
def euler(teacher, x, sigmas, condition):
    """dx/dsigma = (x - d)/sigma: DDIM's steps, and Euler's of a rectified flow, both linear in x_0 and eps."""
    for sigma, following in pairwise([*sigmas, 0.0]):
        slope = -residual(teacher.denoiser, x, torch.full((len(x),), sigma), condition) / sigma
        x = x + (following - sigma) * slope
    return x


def start(pipeline, z):
    """Where the samplers of a pipeline that has just been called began with noise `z`, and their levels."""
    if "Flow" in type(pipeline.scheduler).__name__:
        sigmas = [s / (1 - s) for s in pipeline.scheduler.sigmas.tolist()[:-1]]
        return z * (1 + sigmas[0]), sigmas
    alphas = pipeline.scheduler.alphas_cumprod.double()[pipeline.scheduler.timesteps]
    sigmas = ((1 - alphas) / alphas).sqrt().tolist()
    return z * (1 + sigmas[0] ** 2) ** 0.5, sigmas
