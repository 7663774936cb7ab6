"""What each family's file defines: how its network is called, and the pipeline around it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from simdistill.config.recipes import Levels
from simdistill.method.shapes import Condition, Data, are_labels, label_error
from simdistill.method.text import Text, TextInput
from simdistill.support.checks import require
from simdistill.teachers.diffusers_process import Process, scheduled
from simdistill.teachers.families.latents import Config, Latents, Shape, Size

WIDTH = "the width of the text's embeddings"


@dataclass(frozen=True)
class Conditioning:
    """What a network is conditioned on: `text`, one of `classes` labels, or by default nothing.

    `unconditional`, one row, is the label of the unconditional embedding.
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
    """The part that truncates prompts to them."""
    trimmed: bool = False
    """Whether padding tokens are masked for the network."""
    exported: bool = False
    """Whether a student can be exported as such a pipeline with one step.

    It can if the pipeline multiplies its initial noise by the scheduler's first level, as the generator does [B.14];
    those of rectified flows do not.
    """


def every_token(prompt_embeds: Tensor) -> Tensor:
    """The attention mask `[batch, tokens]` of a network that sees all tokens."""
    return torch.ones(prompt_embeds.shape[:2], dtype=torch.bool, device=prompt_embeds.device)


def labelled(model: Any, state: Data, time: Tensor, condition: Condition, size: Size) -> Tensor:
    """The call of a network that takes labels `[batch]`, or none."""
    return model(state, timestep=time, class_labels=condition, return_dict=False)[0]


def count_in(config: Config, key: str, what: str) -> int:
    """The whole number above 0 under `key` of a configuration, `what` it is; `ValueError` for anything else."""
    value = config.get(key)
    require(_is_count(value), key, value, what)
    return int(value or 0)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def picture_shape(config: Config, side: int | None = None, packed: int = 1) -> Shape:
    """`(channels, height, width)` by `sample_size` and `in_channels`.

    `side` is used if the configuration has no size; `packed` is how many of the network's channels make one of the
    samples'. Raises `ValueError` if something is missing, or the network returns other channels than the samples'.
    """
    size, returned = config.get("sample_size", side), config.get("out_channels")
    sides: Any = [size, size] if isinstance(size, int) else size
    sound = isinstance(sides, list) and len(sides) == 2 and all(_is_count(side) for side in sides)
    require(sound, "sample_size", size, "the height and width of the samples, such as 32 or [32, 32]")
    channels = count_in(config, "in_channels", "the channels of the samples")
    fits = returned in (None, channels, 2 * channels)
    require(fits, "out_channels", returned, f"{channels} as in_channels, or twice that with a learned variance")
    return (channels // packed, *sides)


@dataclass(frozen=True)
class Family:
    """A class of diffusers' networks, and the pipelines around it.

    Functions of a configuration raise `ValueError` if they cannot read it; the caller adds the file's name.
    """

    network: str
    """The network's class."""
    condition: Callable[[Config], Conditioning]
    """What the network is conditioned on, by its configuration."""
    call: Callable[[Any, Data, Tensor, Any, Size], Tensor] = labelled
    """`call(model, state, time, condition, size)`: the prediction, whose first channels are those of `state`.

    `condition` is labels `[batch]`, a `Text` or None, `size` that of the decoded samples.
    """
    shape: Callable[[Config], Shape] = picture_shape
    """The shape of one sample, of any number of dimensions, by the network's configuration."""
    process: Callable[[Path, Levels], Process] = scheduled
    """The prediction type and the noise levels of its times, by the scheduler's file; `rectified_flow` for flows."""
    latents: tuple[Latents, ...] = (Latents(),)
    """The autoencoders; the first one in a pipeline's folder is used, and there may be none."""
    pipelines: tuple[Pipeline, ...] = ()
    """The pipelines with this network that encode text."""
    part: str = "transformer"
    """The network's folder in a pipeline's."""
    formerly: str = ""
    """Its `norm_type` when its class was called Transformer2DModel, before diffusers 0.29."""
    unused: tuple[str, ...] = ()
    """Weights in published folders that the class does not use."""


class DiffusersNetwork(nn.Module):
    """A diffusers model as network(state, time, condition); the channels of a learned variance are dropped.

    `size` is that of the decoded samples, such as a picture's height and width in pixels, which some networks take;
    `classes` is the number of class labels, 0 without.
    """

    def __init__(self, model: nn.Module, family: Family, size: Size = (), classes: int = 0) -> None:
        super().__init__()
        self.model, self.family, self.size, self.classes = model, family, size, classes

    def forward(self, state: Data, time: Tensor, condition: Condition = None) -> Data:
        """The prediction, of the shape of `state`; `condition` is labels, a `Text` or None, as the family takes it.

        Raises `ValueError` for labels that the network does not know, and without any if it takes some.
        """
        if self.classes and not are_labels(condition):
            raise label_error(condition, self.classes)
        if not self.classes or torch.compiler.is_compiling():
            return self._called(state, time, condition)
        try:
            return self._called(state, time, condition)
        except IndexError as error:  # of the embedding; on a GPU it is a failed assertion of the device's
            raise label_error(condition, self.classes) from error

    def _called(self, state: Data, time: Tensor, condition: Condition) -> Data:
        return self.family.call(self.model, state, time, condition, self.size)[:, : state.shape[1]]
