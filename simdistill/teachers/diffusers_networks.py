"""diffusers' networks, each called in its own way, as network(state, time, condition)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from simdistill.method.shapes import Condition, Data
from simdistill.method.text import Text, TextInput

Config: TypeAlias = Mapping[str, Any]
Size: TypeAlias = tuple[int, int]

GUIDANCE = 3.5
"""What a network that was distilled with guidance as an input (FLUX.1-dev) is told: its pipeline's own default."""


def _labelled(model: Any, state: Data, time: Tensor, condition: Condition, size: Size) -> Tensor:
    """UNet2DModel and DiTTransformer2DModel: labels `[batch]`, or none."""
    return model(state, timestep=time, class_labels=condition, return_dict=False)[0]


def _pixart(model: Any, state: Data, time: Tensor, text: Text, size: Size) -> Tensor:
    """PixArtTransformer2DModel (Chen et al. 2023): it sees the prompt's own tokens; that for 1024 pixels the size."""
    known: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
    if model.use_additional_conditions:
        ratio = state.new_tensor([[size[0] / size[1]]])
        known = {"resolution": _rows(state.new_tensor([size]), state), "aspect_ratio": _rows(ratio, state)}
    return model(
        state,
        encoder_hidden_states=text.states,
        encoder_attention_mask=text.mask,
        timestep=time,
        added_cond_kwargs=known,
        return_dict=False,
    )[0]


def _conditional_unet(model: Any, state: Data, time: Tensor, text: Text, size: Size) -> Tensor:
    """UNet2DConditionModel: Stable Diffusion (Rombach et al. 2022) and, with a pooled vector, SDXL (Podell et al. 2023).

    It sees the tokens that only fill the row too, as in its pipelines. SDXL is told that the picture is whole: neither
    enlarged nor cropped.
    """
    whole = None
    if text.pooled is not None:
        whole = {"text_embeds": text.pooled, "time_ids": _rows(state.new_tensor([[*size, 0, 0, *size]]), state)}
    return model(state, time, text.states, added_cond_kwargs=whole, return_dict=False)[0]


def _sd3(model: Any, state: Data, time: Tensor, text: Text, size: Size) -> Tensor:
    """SD3Transformer2DModel (Esser et al. 2024): its times are 0 … 1000."""
    return model(
        state,
        encoder_hidden_states=text.states,
        pooled_projections=text.pooled,
        timestep=1000 * time,
        return_dict=False,
    )[0]


def _flux(model: Any, state: Data, time: Tensor, text: Text, size: Size) -> Tensor:
    """FluxTransformer2DModel (Black Forest Labs 2024): its tokens are patches of 2×2 latents."""
    channels, rows, columns = state.shape[1], state.shape[2] // 2, state.shape[3] // 2
    patches = state.unflatten(3, (columns, 2)).unflatten(2, (rows, 2)).permute(0, 2, 4, 1, 3, 5)
    place = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), -1)
    velocity: Tensor = model(
        patches.flatten(3).flatten(1, 2),
        encoder_hidden_states=text.states,
        pooled_projections=text.pooled,
        timestep=time,
        img_ids=pad(place.flatten(0, 1), (1, 0)).to(state),  # 0, row, column
        txt_ids=state.new_zeros(text.states.shape[1], 3),
        guidance=torch.full_like(time, GUIDANCE) if model.config.guidance_embeds else None,
        return_dict=False,
    )[0]
    patches = velocity.unflatten(2, (channels, 2, 2)).unflatten(1, (rows, columns)).permute(0, 3, 1, 4, 2, 5)
    return patches.flatten(4).flatten(2, 3)


def _rows(row: Tensor, state: Data) -> Tensor:
    return row.expand(len(state), -1)


def _sdxl_pooled(config: Config) -> int:
    """The pooled vector is what six numbers about the size leave of their common input."""
    if config.get("addition_embed_type") != "text_time":
        return 0
    return int(config["projection_class_embeddings_input_dim"]) - 6 * int(config["addition_time_embed_dim"])


@dataclass(frozen=True)
class Kind:
    """How a class of diffusers' is called, and what of its configuration says which text it takes.

    `tokens` is the length to which its pipeline cuts and fills prompts, 0 for a network without text; `width` and
    `pooled` read the configuration. One that `flows` predicts the velocity of a rectified flow at times in (0, 1).
    `side` is a sample's where the configuration has none; `packed` neighbours make one of the network's own channels.
    """

    call: Callable[..., Tensor]
    tokens: int = 0
    width: str = ""
    pooled: Callable[[Config], int] = lambda _: 0
    flows: bool = False
    side: int | None = None
    packed: int = 1

    def text(self, config: Config) -> TextInput | None:
        """The text that a network of that configuration takes."""
        return TextInput(self.tokens, int(config.get(self.width) or 0), self.pooled(config)) if self.tokens else None


def _projected(config: Config) -> int:
    return int(config.get("pooled_projection_dim") or 0)


# fmt: off
KINDS: dict[str, Kind] = {
    "UNet2DModel":              Kind(_labelled),
    "DiTTransformer2DModel":    Kind(_labelled),
    "PixArtTransformer2DModel": Kind(_pixart,           120, "caption_channels"),
    "UNet2DConditionModel":     Kind(_conditional_unet,  77, "cross_attention_dim", _sdxl_pooled),
    "SD3Transformer2DModel":    Kind(_sd3,         77 + 256, "joint_attention_dim", _projected, flows=True),
    "FluxTransformer2DModel":   Kind(_flux,             512, "joint_attention_dim", _projected, flows=True, side=128, packed=4),
}
# fmt: on
"""By the name of the model's class."""


class DiffusersNetwork(nn.Module):
    """A model of diffusers' as network(state, time, condition); the channels of a learned variance are dropped.

    `size` is a picture's height and width in pixels, which some are told.
    """

    def __init__(self, model: nn.Module, kind: Kind = KINDS["UNet2DModel"], size: Size = (0, 0)) -> None:
        super().__init__()
        self.model, self.kind, self.size = model, kind, size

    def forward(self, state: Data, time: Tensor, condition: Condition = None) -> Data:
        """The prediction, of the shape of `state`; `condition` is labels, a `Text` or None, as the kind takes it."""
        return self.kind.call(self.model, state, time, condition, self.size)[:, : state.shape[1]]
