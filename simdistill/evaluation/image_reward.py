"""ImageReward (Xu et al. 2023): BLIP's text encoder attends to the picture, and a head maps its output to a score.

Built on transformers' BLIP. ImageReward's own library needs timm 0.6.13 and functions that transformers 5 has removed.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simdistill.evaluation.clip import read_tokenizer, shown
from simdistill.method.shapes import PerSample, Pictures
from simdistill.networks.score_head import ScoreHead
from simdistill.support.libraries import library
from simdistill.support.tensors import fill, fingerprint, read_state

CENTRE, SPREAD = 0.16717362830052426, 1.0333394966054072
"""Mean and standard deviation of the head's outputs, which standardise the published score."""
TOKENS = 35  # per prompt, padded to this length
HEAD = 64  # dimension of an attention head, in both parts
VISION, TEXT = "blip.visual_encoder.", "blip.text_encoder."
# fmt: off
NAMES = {
    "cls_token":   "embeddings.class_embedding",
    "pos_embed":   "embeddings.position_embedding",
    "patch_embed.proj": "embeddings.patch_embedding",
    "blocks":      "encoder.layers",
    "norm1":       "layer_norm1",
    "norm2":       "layer_norm2",
    "norm":        "post_layernorm",
    "attn.qkv":    "self_attn.qkv",
    "attn.proj":   "self_attn.projection",
}
# fmt: on
"""transformers' names of the vision encoder's tensors, by BLIP's own."""


@dataclass(frozen=True)
class ImageReward:
    """The network in three parts, and BERT's tokenizer; the `name` identifies the weights."""

    name: str
    vision: Any
    text: Any
    head: ScoreHead
    tokenizer: Any

    def __call__(self, pictures: Pictures, prompts: Sequence[str]) -> PerSample:
        """The reward of each picture in [-1, 1] for its prompt, standardised as by its authors."""
        device = self.vision.device
        seen = self.vision(pixel_values=shown(pictures, self.vision.config.image_size).to(device)).last_hidden_state
        most = min(TOKENS, self.text.config.max_position_embeddings)
        how = {"padding": "max_length", "truncation": True, "max_length": most, "return_tensors": "pt"}
        tokens = self.tokenizer(list(prompts), **how).to(device)
        states = self.text(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=device),
        )
        return (self.head(states.last_hidden_state[:, 0]) - CENTRE) / SPREAD


def read_image_reward(path: Path, device: torch.device | str = "cpu") -> ImageReward:
    """The network in ImageReward.pt, its sizes taken from its tensors, and the tokenizer beside it, on `device`.

    Nothing is executed or downloaded. Raises `ValueError` if something is missing, damaged, or another network's.
    """
    state = read_state(path)
    vision, text = _part(state, VISION), _part(state, TEXT)
    vision = {_renamed(name): tensor for name, tensor in vision.items()}
    text = {name: tensor for name, tensor in text.items() if not name.endswith("position_ids")}
    with library():
        transformers: Any = import_module("transformers")
        try:
            sizes = _vision_sizes(vision)
            eye = transformers.BlipVisionModel(transformers.BlipVisionConfig(**sizes))
            config = transformers.BlipTextConfig(**_text_sizes(text), encoder_hidden_size=sizes["hidden_size"])
            reader = transformers.BlipTextModel(config, add_pooling_layer=False)
        except (KeyError, IndexError, ValueError, RuntimeError, ZeroDivisionError) as error:
            what = "holds no ImageReward, a BLIP and a head"
            raise ValueError(f"{path}: {what} ({type(error).__name__}: {error}): must be ImageReward.pt") from error
    eye, reader = fill(eye, vision, path, "BLIP").to(device), fill(reader, text, path, "BLIP").to(device)
    head = fill(ScoreHead(config.hidden_size), _part(state, "mlp."), path, "ImageReward").to(device)
    tokenizer = read_tokenizer("BertTokenizer", path.parent, config.vocab_size)
    return ImageReward(f"{path.stem}-{fingerprint([path])}", eye, reader, head, tokenizer)


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _renamed(name: str) -> str:
    """transformers' name for a tensor of the vision encoder."""
    for old, new in NAMES.items():
        name = re.sub(rf"(^|\.){re.escape(old)}(\.|$)", rf"\g<1>{new}\g<2>", name)
    return name


def _vision_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The sizes of BLIP's vision transformer, timm's with epsilon 1e-6 in its norms."""
    width, _, patch, _ = state["embeddings.patch_embedding.weight"].shape
    places = state["embeddings.position_embedding"].shape[1] - 1
    return {
        "hidden_size": width,
        "intermediate_size": len(state["encoder.layers.0.mlp.fc1.weight"]),
        "num_hidden_layers": _layers(state, r"encoder\.layers\.(\d+)\."),
        "num_attention_heads": width // HEAD,
        "image_size": round(places**0.5) * patch,
        "patch_size": patch,
        "layer_norm_eps": 1e-6,
    }


def _text_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The sizes of the BERT that also attends to the picture."""
    words, width = state["embeddings.word_embeddings.weight"].shape
    return {
        "vocab_size": words,
        "hidden_size": width,
        "intermediate_size": len(state["encoder.layer.0.intermediate.dense.weight"]),
        "num_hidden_layers": _layers(state, r"encoder\.layer\.(\d+)\."),
        "num_attention_heads": width // HEAD,
        "max_position_embeddings": len(state["embeddings.position_embeddings.weight"]),
    }


def _layers(state: Mapping[str, Tensor], pattern: str) -> int:
    return 1 + max(int(found[1]) for name in state if (found := re.match(pattern, name)))
