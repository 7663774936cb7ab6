"""CLIP (Radford et al. 2021) from transformers' folders: pictures and prompts as directions in one space."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from simdistill.evaluation.inception import as_bytes
from simdistill.method.shapes import PerSample, Pictures
from simdistill.support.checks import require
from simdistill.support.json_text import read_json
from simdistill.support.libraries import library, short
from simdistill.support.tensors import fingerprint

Directions: TypeAlias = Float[Tensor, "batch width"]

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the colours that CLIP was trained on; BLIP and ImageReward use the same."""
TOKENIZERS = {"CLIPTokenizer": ("vocab.json", "merges.txt"), "BertTokenizer": ("vocab.txt",)}
"""transformers' classes, and their files where there is no tokenizer.json."""


@dataclass(frozen=True)
class Clip:
    """transformers' CLIP network and its tokenizer; the `name` identifies the weights."""

    name: str
    model: Any
    tokenizer: Any

    @property
    def width(self) -> int:
        """The dimension of an embedding."""
        return self.model.config.projection_dim

    @property
    def device(self) -> torch.device:
        """The device of the network and its embeddings."""
        return self.model.device

    @property
    def scale(self) -> float:
        """The learned factor of the cosines: the exponential of the network's `logit_scale`."""
        return float(self.model.logit_scale.exp())

    def pictures(self, pictures: Pictures) -> Directions:
        """Normalised embeddings of pictures in [-1, 1]."""
        seen = shown(pictures, self.model.config.vision_config.image_size).to(self.device)
        return normalize(self.model.visual_projection(self.model.vision_model(pixel_values=seen).pooler_output))

    def prompts(self, prompts: Sequence[str]) -> Directions:
        """Normalised embeddings of prompts, truncated to the network's context length, 77 tokens."""
        most = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(list(prompts), padding=True, truncation=True, max_length=most, return_tensors="pt")
        tokens = tokens.to(self.device)
        states = self.model.text_model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
        return normalize(self.model.text_projection(states.pooler_output))

    def cosines(self, pictures: Pictures, prompts: Sequence[str]) -> PerSample:
        """The cosine similarity of each picture and its own prompt."""
        return (self.pictures(pictures) * self.prompts(prompts)).sum(1)


def shown(pictures: Pictures, edge: int) -> Float[Tensor, "batch 3 edge edge"]:
    """Pictures in [-1, 1], preprocessed as for CLIP and BLIP.

    8 bits, the shorter side resized to `edge` pixels by Pillow's bicubic filter, centre-cropped to a square, colours
    standardised. Raises `ValueError` for samples that are no images of 1 or 3 channels.
    """
    squares = [_square(Image.fromarray(one.permute(1, 2, 0).numpy()), edge) for one in as_bytes(pictures.cpu())]
    colours = torch.stack(squares).float() / 255
    return (colours - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def read_clip(folder: Path, device: torch.device | str = "cpu") -> Clip:
    """The CLIPModel in a folder that transformers' `save_pretrained` wrote, with its tokenizer, on `device`.

    Safetensors take precedence over .bin; nothing is executed or downloaded. Raises `ValueError` if the folder has
    something else, is incomplete or damaged.
    """
    check_config(folder)
    with library():
        transformers: Any = import_module("transformers")
        try:
            model, report = transformers.CLIPModel.from_pretrained(
                str(folder), local_files_only=True, output_loading_info=True
            )
        except Exception as error:  # whatever transformers raises
            raise ValueError(f"{folder}: cannot be read as a CLIPModel ({short(error)})") from error
    unknown = [name for name in report["unexpected_keys"] if not name.endswith("position_ids")]  # of old versions
    odd = [*(f"{name} missing" for name in report["missing_keys"]), *(f"{name} unknown" for name in unknown)]
    require(not odd, f"{folder}: weights", odd[:3], "exactly those of the CLIPModel in its config.json")
    weights = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    model = model.float().eval().requires_grad_(False).to(device)
    name = f"{folder.resolve().name}-{fingerprint(weights)}"
    return Clip(name, model, read_tokenizer("CLIPTokenizer", folder, model.config.text_config.vocab_size))


def check_config(folder: Path) -> None:
    """Raise `ValueError` unless the folder's config.json is that of a CLIPModel."""
    kind = read_json(folder / "config.json").get("model_type")
    require(kind == "clip", f"{folder / 'config.json'}: model_type", kind, "clip: transformers' CLIPModel")


def read_tokenizer(kind: str, folder: Path, words: int) -> Any:
    """transformers' tokenizer of class `kind` in a folder, for a network with a vocabulary of so many `words`.

    Raises `ValueError` if it is damaged, has more words, or is missing, which transformers itself does not report.
    """
    files = TOKENIZERS[kind]
    there = (folder / "tokenizer.json").is_file() or all((folder / file).is_file() for file in files)
    remedy = f"with {' and '.join(files)}, or tokenizer.json: copy the tokenizer there"
    require(there, f"{folder}: its tokenizer", "missing", remedy)
    with library():
        try:
            tokenizer = getattr(import_module("transformers"), kind).from_pretrained(str(folder), local_files_only=True)
        except Exception as error:  # whatever transformers raises
            raise ValueError(f"{folder}: its tokenizer cannot be read ({short(error)})") from error
    require(len(tokenizer) <= words, f"{folder}: words of its tokenizer", len(tokenizer), f"at most {words}")
    return tokenizer


def _square(picture: Image.Image, edge: int) -> Tensor:
    """uint8 `[3, edge, edge]`: the centre crop of the picture, its shorter side resized to `edge`."""
    short_side = min(picture.size)
    width, height = (int(edge * side / short_side) for side in picture.size)
    left, top = (width - edge) // 2, (height - edge) // 2
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    pixels = bytearray(resized.crop((left, top, left + edge, top + edge)).tobytes())
    return torch.frombuffer(pixels, dtype=torch.uint8).reshape(edge, edge, 3).permute(2, 0, 1)
