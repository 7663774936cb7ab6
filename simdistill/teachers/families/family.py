"""The form that the file of each family fills in: how its network is called, and what stands around it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from simdistill.config.recipes import Levels
from simdistill.method.shapes import Condition, Data
from simdistill.method.text import Text, TextInput
from simdistill.support.checks import require
from simdistill.teachers.diffusers_process import Process, scheduled
from simdistill.teachers.families.latents import Config, Latents, Shape, Size


@dataclass(frozen=True)
class Conditioning:
    """What a network is conditioned on: `text` of a form, one of `classes` labels, or by default nothing.

    `unconditional`, one row, is the label that stands for none.
    """

    text: TextInput | None = None
    classes: int = 0
    unconditional: Tensor | None = None


@dataclass(frozen=True)
class Pipeline:
    """A class of diffusers' pipelines by its `name`, and how it encodes text."""

    name: str
    encode: Callable[[Any, list[str], torch.device], Text]
    """`encode(pipeline, prompts, device)`: what the pipeline's own `encode_prompt` returns."""
    limit: int
    """How many tokens of a prompt are kept."""
    tokenizer: str = "tokenizer"
    """The part that cuts prompts to them."""
    trimmed: bool = False
    """Whether the network does not see the tokens that only fill a row."""
    exported: bool = False
    """Whether a student can be written as such a pipeline of one step.

    It can if the pipeline multiplies its starting noise by the scheduler's first level, as the generator does [B.14];
    those of rectified flows do not.
    """


def every_token(prompt_embeds: Tensor) -> Tensor:
    """The attention mask `[batch, tokens]` of a network that sees them all."""
    return torch.ones(prompt_embeds.shape[:2], dtype=torch.bool, device=prompt_embeds.device)


def labelled(model: Any, state: Data, time: Tensor, condition: Condition, size: Size) -> Tensor:
    """The call of a network that takes labels `[batch]`, or none."""
    return model(state, timestep=time, class_labels=condition, return_dict=False)[0]


def picture_shape(config: Config, side: int | None = None, packed: int = 1) -> Shape:
    """`(channels, height, width)` by `sample_size` and `in_channels`.

    `side` is a sample's where the configuration has none; `packed` neighbours make one of the network's own channels.
    Raises `ValueError` if they are not there, or the network returns something else than the samples' channels.
    """
    size, channels, returned = config.get("sample_size", side), config.get("in_channels"), config.get("out_channels")
    sides: Any = [size, size] if isinstance(size, int) else size
    sound = isinstance(sides, list) and len(sides) == 2 and all(isinstance(side, int) for side in sides)
    require(sound, "sample_size", size, "the height and width of the samples, as 32 or [32, 32]")
    require(isinstance(channels, int), "in_channels", channels, "the channels of the samples")
    channels = int(channels or 0)
    fits = returned in (None, channels, 2 * channels)
    require(fits, "out_channels", returned, f"{channels} as in_channels, or twice that with a learned variance")
    return (channels // packed, *sides)


@dataclass(frozen=True)
class Family:
    """What is known of the networks of one of diffusers' classes, and of the pipelines around them.

    Functions of a configuration raise `ValueError` for one that they cannot read; whoever calls them names the file.
    """

    network: str
    """The network's class."""
    condition: Callable[[Config], Conditioning]
    """What the network takes beside state and time, by its configuration."""
    call: Callable[[Any, Data, Tensor, Any, Size], Tensor] = labelled
    """`call(model, state, time, condition, size)`: the prediction, its channels first those of `state`.

    `condition` is labels `[batch]`, a `Text` or None, `size` that of the decoded samples.
    """
    shape: Callable[[Config], Shape] = picture_shape
    """Of one sample, by the network's configuration; of any number of dimensions."""
    process: Callable[[Path, Levels], Process] = scheduled
    """What the network predicts and the levels of its times, by its scheduler's file; `rectified_flow` for flows."""
    latents: tuple[Latents, ...] = (Latents(),)
    """How samples are coded; the first of them that is in a pipeline's folder counts, and there may be none."""
    pipelines: tuple[Pipeline, ...] = ()
    """Those that the network is part of and that encode text."""
    part: str = "transformer"
    """The network's folder in a pipeline's."""
    formerly: str = ""
    """Its `norm_type` when its class was called Transformer2DModel, before diffusers 0.29."""
    unused: tuple[str, ...] = ()
    """Weights in published folders that the class has no place for."""


class DiffusersNetwork(nn.Module):
    """A model of diffusers' as network(state, time, condition); the channels of a learned variance are dropped.

    `size` is that of the decoded samples, as a picture's height and width in pixels, which some are told.
    """

    def __init__(self, model: nn.Module, family: Family, size: Size = ()) -> None:
        super().__init__()
        self.model, self.family, self.size = model, family, size

    def forward(self, state: Data, time: Tensor, condition: Condition = None) -> Data:
        """The prediction, of the shape of `state`; `condition` is labels, a `Text` or None, as the family takes it."""
        return self.family.call(self.model, state, time, condition, self.size)[:, : state.shape[1]]
