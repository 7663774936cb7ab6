"""Autoencoders in diffusers' folders: latents to pictures, and pictures to latents."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from simdistill.method.shapes import Data, Pictures
from simdistill.support.checks import require
from simdistill.teachers.diffusers_files import class_of, load_model, read_json

KINDS = {"vae": "AutoencoderKL", "vqvae": "VQModel"}  # by their place in a pipeline's folder
VALUES = 8 * 4 * 64 * 64  # of the latents that it is called with: of eight pictures of 512 pixels a side


class Autoencoder:
    """The autoencoder in `folder`, of one of diffusers' classes `kinds`, loaded when it is first asked.

    Raises `ValueError` if the folder's configuration is of another.
    """

    def __init__(self, folder: Path, *kinds: str) -> None:
        self.folder, self._config = folder, read_json(folder / "config.json")
        self._kind = class_of(self._config, folder, kinds or tuple(KINDS.values()))

    @property
    def enlarges(self) -> int:
        """A picture's side over its latents'."""
        return 2 ** (len(self._config.get("block_out_channels", [0])) - 1)

    @torch.no_grad()
    def __call__(self, latents: Data) -> Pictures:
        """Pictures in [-1, 1] of latents `[batch, …]`, where the latents are."""
        autoencoder, shift = self._model(latents), self._config.get("shift_factor") or 0.0
        encoded = latents / autoencoder.config.scaling_factor + shift
        return torch.cat([autoencoder.decode(part, return_dict=False)[0] for part in encoded.split(_few(latents))])

    @torch.no_grad()
    def latents(self, pictures: Pictures) -> Data:
        """The latents, their means, of pictures in [-1, 1] `[batch, …]`, where the pictures are.

        Raises `ValueError` for a VQModel: the latents of its pipelines are none that it gives.
        """
        known = self._kind == "AutoencoderKL"
        require(known, f"{self.folder}: its class", self._kind, "AutoencoderKL: it is to give latents")
        autoencoder, shift = self._model(pictures), self._config.get("shift_factor") or 0.0
        parts = [autoencoder.encode(part).latent_dist.mode() for part in pictures.split(_few(pictures))]
        return (torch.cat(parts) - shift) * autoencoder.config.scaling_factor

    def _model(self, beside: Data) -> Any:
        return self._autoencoder.to(beside.device)

    @cached_property
    def _autoencoder(self) -> nn.Module:
        return load_model(self._kind, self.folder)


def autoencoder_in(pipeline: Path) -> Autoencoder | None:
    """That of a latent pipeline's folder, None if it has none."""
    found = [part for part in KINDS if (pipeline / part / "config.json").is_file()]
    return Autoencoder(pipeline / found[0], KINDS[found[0]]) if found else None


def _few(samples: Data) -> int:
    """How many of them are coded at a time."""
    return max(1, VALUES // samples[0].numel())
