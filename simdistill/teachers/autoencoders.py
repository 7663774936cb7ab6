"""Autoencoders in diffusers' folders: latents to pictures, and pictures to latents."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from simdistill.method.shapes import Data, Pictures
from simdistill.support.checks import require
from simdistill.support.json_text import read_json
from simdistill.teachers.diffusers_files import class_of, load_model
from simdistill.teachers.diffusers_settings import check_settings
from simdistill.teachers.families import Family, Latents, autoencoders
from simdistill.teachers.families.latents import Shape, Size, check_scaling
from simdistill.teachers.single_file import AUTOENCODER, has_part, load_part

VALUES = 8 * 4 * 64 * 64  # of latents per call: those of eight pictures of 512×512 pixels


class Autoencoder:
    """The autoencoder in `folder`, of a class that `latents` or any family knows, loaded on its first call.

    Its weights may be in a `checkpoint` of one file.

    Raises `ValueError` if the folder's configuration names another class, or has an impossible scaling.
    """

    def __init__(self, folder: Path, latents: Latents | None = None, checkpoint: Path | None = None) -> None:
        self._checkpoint = checkpoint
        self.folder, self._config = folder, read_json(folder / "config.json")
        known = autoencoders() if latents is None else {latents.autoencoder: latents}
        self._latents = known[class_of(self._config, folder, tuple(known))]
        try:
            check_scaling(self._config, self._latents.channels(self._config))
        except ValueError as error:
            raise ValueError(f"{folder / 'config.json'}: {error}") from error

    def check(self, shape: Shape) -> None:
        """Raise `ValueError` unless it decodes latents of the `shape` of a network's samples, as far as it says."""
        path, channels = self.folder / "config.json", self._latents.channels(self._config)
        check_settings(self._config, self._latents.autoencoder, path)
        remedy = f"{shape[0]}, as the network's samples have: put the network's own autoencoder there"
        require(channels in (None, shape[0]), f"{path}: channels of its latents", channels, remedy)

    def size(self, shape: Shape) -> Size:
        """The size of a picture, without channels, by the shape of its latents."""
        return self._latents.size(self._config, shape)

    @torch.no_grad()
    def __call__(self, latents: Data) -> Pictures:
        """Pictures in [-1, 1] of latents `[batch, …]`, on the latents' device."""
        autoencoder = self._model(latents)
        scale, shift = self._scaling(autoencoder, latents)
        codes = latents / scale + shift
        return torch.cat([self._latents.decode(autoencoder, part) for part in codes.split(_few(latents))])

    @torch.no_grad()
    def latents(self, pictures: Pictures) -> Data:
        """The mean latents of pictures in [-1, 1] `[batch, …]`, on the pictures' device.

        Raises `ValueError` for a VQModel: its pipelines use latents that it does not return.
        """
        encode, kind = self._latents.encode, self._latents.autoencoder
        if encode is None:
            known = " or ".join(name for name, latents in autoencoders().items() if latents.encode)
            raise ValueError(f"{self.folder}: its class = {kind!r}: must be {known}, to encode latents")
        autoencoder = self._model(pictures)
        codes = torch.cat([encode(autoencoder, part) for part in pictures.split(_few(pictures))])
        scale, shift = self._scaling(autoencoder, codes)
        return (codes - shift) * scale

    def _scaling(self, autoencoder: Any, beside: Data) -> tuple[float | Tensor, float | Tensor]:
        """Scale and shift; those of each channel as `[channels, 1, …]`, to broadcast over `beside`."""
        scale, shift = (
            value.to(beside).reshape(-1, *[1] * (beside.ndim - 2)) if isinstance(value, Tensor) else value
            for value in self._latents.scaling(autoencoder)
        )
        return scale, shift

    def _model(self, beside: Data) -> Any:
        return self._autoencoder.to(beside.device)

    @cached_property
    def _autoencoder(self) -> nn.Module:
        if self._checkpoint is not None:
            return load_part(self._latents.autoencoder, self._checkpoint, self.folder, AUTOENCODER)
        return load_model(self._latents.autoencoder, self.folder)


def autoencoder_in(pipeline: Path, family: Family, checkpoint: Path | None = None) -> Autoencoder | None:
    """The autoencoder in a latent pipeline's folder, as in the family of its network; None without one.

    Its weights are those of the `checkpoint` of one file, if that has some.
    """
    own = checkpoint if checkpoint is not None and has_part(checkpoint, AUTOENCODER) else None
    for latents in family.latents:
        if (pipeline / latents.part / "config.json").is_file():
            return Autoencoder(pipeline / latents.part, latents, own)
    return None


def _few(samples: Data) -> int:
    """How many samples are coded at a time."""
    return max(1, VALUES // samples[0].numel())
