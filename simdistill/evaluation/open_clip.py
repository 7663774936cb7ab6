"""CLIP weights under open_clip's names, as HPSv2 is published, for transformers' network.

Their own libraries do not fit this package: open_clip needs torchvision, and hpsv2 needs protobuf below 4 and one old
version of pytest.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simdistill.evaluation.clip import Clip, check_config, read_tokenizer
from simdistill.support.checks import require
from simdistill.support.libraries import library, short
from simdistill.support.tensors import fill, fingerprint, read_state

# fmt: off
NAMES = {
    "logit_scale":                 "logit_scale",
    "token_embedding.weight":      "text_model.embeddings.token_embedding.weight",
    "positional_embedding":        "text_model.embeddings.position_embedding.weight",
    "ln_final.weight":             "text_model.final_layer_norm.weight",
    "ln_final.bias":               "text_model.final_layer_norm.bias",
    "text_projection":             "text_projection.weight",
    "visual.class_embedding":      "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight":         "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight":        "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias":          "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight":       "vision_model.post_layernorm.weight",
    "visual.ln_post.bias":         "vision_model.post_layernorm.bias",
    "visual.proj":                 "visual_projection.weight",
}
TOWERS = {
    "transformer.resblocks.":        "text_model.encoder.layers.",
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
}
BLOCK = {
    "ln_1":          "layer_norm1",
    "attn.out_proj": "self_attn.out_proj",
    "ln_2":          "layer_norm2",
    "mlp.c_fc":      "mlp.fc1",
    "mlp.c_proj":    "mlp.fc2",
}
# fmt: on
TRANSPOSED = ("text_projection", "visual.proj")
JOINT = "attn.in_proj_"  # queries, keys and values, concatenated by rows


def read_open_clip(path: Path, device: torch.device | str = "cpu") -> Clip:
    """The CLIP in a file of open_clip; sizes and tokenizer come from transformers' folder around the file.

    Nothing is executed or downloaded. Raises `ValueError` if the file or its neighbours are missing, damaged, or belong
    to another network.
    """
    state = renamed(read_state(path))
    check_config(path.parent)
    with library():
        transformers: Any = import_module("transformers")
        try:
            model = transformers.CLIPModel(transformers.CLIPConfig.from_pretrained(str(path.parent)))
        except Exception as error:  # whatever transformers raises
            raise ValueError(f"{path.parent}: its config.json is not that of a CLIPModel ({short(error)})") from error
    model = fill(model, state, path, "the CLIP of the config.json beside it").to(device)
    tokenizer = read_tokenizer("CLIPTokenizer", path.parent, model.config.text_config.vocab_size)
    return Clip(f"{path.stem}-{fingerprint([path])}", model, tokenizer)


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors renamed from open_clip's names to transformers'; unknown names stay.

    Raises `ValueError` if a joint projection of queries, keys and values cannot be split in three.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        tower = next((tower for tower in TOWERS if name.startswith(tower)), None)
        if tower is None:
            found[NAMES.get(name, name)] = tensor.T if name in TRANSPOSED else tensor
            continue
        block, _, part = name.removeprefix(tower).partition(".")
        layer, (what, _, kind) = f"{TOWERS[tower]}{block}.", part.rpartition(".")
        if not part.startswith(JOINT):
            found[f"{layer}{BLOCK.get(what, what)}.{kind}"] = tensor
            continue
        require(len(tensor) % 3 == 0, f"rows of {name}", len(tensor), "three times those of one projection")
        for letter, rows in zip("qkv", tensor.chunk(3), strict=True):
            found[f"{layer}self_attn.{letter}_proj.{part.removeprefix(JOINT)}"] = rows
    return found
