"""PixArt-α's transformer (Chen et al. 2023), in diffusers' implementation, to be trained from scratch."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from simdistill.method.shapes import Data, Sigma
from simdistill.method.text import Text, TextInput
from simdistill.support.checks import require
from simdistill.support.libraries import library

HEAD = 32  # features per attention head
TIMES = 100.0  # timesteps per unit of c_noise: the fastest sinusoid then has a period of 0.25 in ln sigma


class PixArt(nn.Module):
    """F(x, c_noise, text) for square images of `shape`, cut into patches: `depth` blocks of `width` features.

    A block attends to all patches, then to the prompt's tokens (at most `tokens`, of width `text_width`); the noise
    level gives scales and shifts. The output starts at zero, so that the preconditioned denoiser starts as the best
    linear one. Raises `ValueError` for sizes that do not divide.
    """

    def __init__(self, shape: Sequence[int], patch: int, width: int, depth: int, tokens: int, text_width: int) -> None:
        super().__init__()
        square = len(shape) == 3 and shape[1] == shape[2] and shape[1] % patch == 0
        require(square, "shape", tuple(shape), f"of a square image with a side divisible by patch = {patch}")
        require(width % HEAD == 0, "width", width, f"a multiple of {HEAD}, the features per attention head")
        self.text = TextInput(tokens, text_width)
        self.arguments: dict[str, Any] = {
            "shape": list(shape),
            "patch": patch,
            "width": width,
            "depth": depth,
            "tokens": tokens,
            "text_width": text_width,
        }
        with library() as diffusers:
            self.transformer: Any = diffusers.PixArtTransformer2DModel(
                num_attention_heads=width // HEAD,
                attention_head_dim=HEAD,
                in_channels=shape[0],
                out_channels=shape[0],
                num_layers=depth,
                cross_attention_dim=width,
                sample_size=shape[1],
                patch_size=patch,
                caption_channels=text_width,
                use_additional_conditions=False,
            )
        nn.init.zeros_(self.transformer.proj_out.weight)
        nn.init.zeros_(self.transformer.proj_out.bias)

    def forward(self, x: Data, noise_labels: Sigma, text: Text) -> Data:
        """The network's raw output, the shape of `x`; `noise_labels` is c_noise."""
        return self.transformer(
            x,
            encoder_hidden_states=text.prompt_embeds,
            encoder_attention_mask=text.attention_mask,
            timestep=TIMES * noise_labels,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )[0]
