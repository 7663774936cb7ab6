"""PixArt-alpha's checkpoints in their authors' format (Chen et al. 2023), loaded into diffusers' network.

The generator published by the paper's authors, SIM-DiT-600M, has it too: a `.pth` whose `ema` is its state dict.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from simdistill.support.checks import require
from simdistill.support.tensors import check_tensors, read_content
from simdistill.teachers.diffusers_process import paper_levels

# fmt: off
NETWORK = {
    "x_embedder.proj":               "pos_embed.proj",
    "t_embedder.mlp.0":              "adaln_single.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2":              "adaln_single.emb.timestep_embedder.linear_2",
    "csize_embedder.mlp.0":          "adaln_single.emb.resolution_embedder.linear_1",    # these four for 1024 pixels
    "csize_embedder.mlp.2":          "adaln_single.emb.resolution_embedder.linear_2",
    "ar_embedder.mlp.0":             "adaln_single.emb.aspect_ratio_embedder.linear_1",
    "ar_embedder.mlp.2":             "adaln_single.emb.aspect_ratio_embedder.linear_2",
    "t_block.1":                     "adaln_single.linear",
    "y_embedder.y_proj.fc1":         "caption_projection.linear_1",
    "y_embedder.y_proj.fc2":         "caption_projection.linear_2",
    "final_layer.linear":            "proj_out",
    "final_layer.scale_shift_table": "scale_shift_table",
}
BLOCK = {
    "scale_shift_table":             "scale_shift_table",
    "attn.qkv":                      "attn1.to_q attn1.to_k attn1.to_v",
    "attn.proj":                     "attn1.to_out.0",
    "cross_attn.q_linear":           "attn2.to_q",
    "cross_attn.kv_linear":          "attn2.to_k attn2.to_v",
    "cross_attn.proj":               "attn2.to_out.0",
    "mlp.fc1":                       "ff.net.0.proj",
    "mlp.fc2":                       "ff.net.2",
}
# fmt: on
"""PixArt's names and diffusers', of layers with weight and bias or of tensors; several names share the rows in order.

`BLOCK` has those in `blocks.N`, diffusers' `transformer_blocks.N`.
"""
PREFIXES = ("module.", "model.")
"""Prefixes of the names: of DistributedDataParallel, and of the denoiser [B.13] around the network."""
POSITIONS, LEVELS, NO_CAPTION = "pos_embed", "u", "y_embedder.y_embedding"
"""Not in `NETWORK`: two tables, and the unconditional embedding of PixArt's training."""
ROUNDING = 0.0045  # bfloat16 rounds by 0.004; the usual levels of these betas end 0.005 above the paper's


def read_pixart(path: Path, model: nn.Module) -> None:
    """Load the weights under `ema` in a `.pth` with PixArt's own names into `model`, a `PixArtTransformer2DModel`.

    torch's restricted unpickler reads the file: it builds tensors and refuses everything else. The file's table of
    positions, and of noise levels if it has one, must be those that are computed here; the unconditional embedding is
    dropped. Raises `ValueError` if the file is missing, damaged, asks for code or has no `ema`, or if a tensor is
    missing, unexpected, or of another shape.
    """
    tensors, state, places = _read_ema(path), model.state_dict(), _places(model)
    wanted = {name: [sum(len(state[p]) for p in parts), *state[parts[0]].shape[1:]] for name, parts in places.items()}
    own = {name: tensor for name, tensor in tensors.items() if name not in (LEVELS, NO_CAPTION)}
    positions = _positions(model)
    check_tensors(own, wanted | {POSITIONS: positions.shape}, path, "the teacher's network")
    _check_tables(path, tensors, positions)
    for name, parts in places.items():
        rows = [len(state[part]) for part in parts]
        state |= dict(zip(parts, tensors[name].split(rows), strict=True))
    model.load_state_dict(state)


def _read_ema(path: Path) -> dict[str, Tensor]:
    """The tensors under `ema`, by their names without `PREFIXES`."""
    content = read_content(path)
    content = content if isinstance(content, dict) else {}
    ema = content.get("ema")
    if not isinstance(ema, dict):
        raise ValueError(  # noqa: TRY004  (the file is wrong)
            f"{path}: has no state dict under the key 'ema' (keys: {', '.join(map(str, content))[:200] or 'none'}); "
            "name the published generator's file"
        )
    found: dict[str, Tensor] = {}
    for key, tensor in ema.items():
        name = str(key)
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        dense = isinstance(tensor, Tensor) and tensor.layout == torch.strided and tensor.is_floating_point()
        require(dense, f"{path}: {name}", type(tensor).__name__, "a tensor of floating-point numbers")
        require(name not in found, f"{path}: {name}", "there twice", "there once")
        found[name] = tensor
    return found


def _places(model: nn.Module) -> dict[str, list[str]]:
    """PixArt's names of the tensors in `model`, each with the names in `model` that its rows fill in turn."""
    state, table = model.state_dict(), {name: [theirs] for name, theirs in NETWORK.items()}
    blocks: Any = model.transformer_blocks
    for n in range(len(blocks)):
        for name, theirs in BLOCK.items():
            table[f"blocks.{n}.{name}"] = [f"transformer_blocks.{n}.{one}" for one in theirs.split()]
    ends = ("", ".weight", ".bias")
    places = {name + end: [one + end for one in theirs] for name, theirs in table.items() for end in ends}
    places = {name: theirs for name, theirs in places.items() if theirs[0] in state}
    beyond = sorted(state.keys() - {one for theirs in places.values() for one in theirs})
    require(not beyond, "teacher: tensors", beyond[:3], "only those of PixArt-alpha's network")
    return places


def _positions(model: nn.Module) -> Tensor:
    embedder: Any = model.pos_embed
    return embedder.pos_embed


def _check_tables(path: Path, tensors: dict[str, Tensor], positions: Tensor) -> None:
    """Positions and noise levels are computed, not loaded: those of the file must be the same, up to rounding."""
    same = torch.allclose(tensors[POSITIONS].float(), positions, rtol=0, atol=ROUNDING)
    what = f"the teacher's, {[*positions.shape]} sines and cosines of its rows and columns"
    require(same, f"{path}: {POSITIONS}", "another table", what)
    if LEVELS in tensors:  # u_0 … u_1000 = 0, the largest first
        found, table = tensors[LEVELS], paper_levels().flip(0)
        same = found.shape == (len(table) + 1,) and torch.allclose(found[:-1].double(), table, rtol=ROUNDING)
        require(same, f"{path}: {LEVELS}", f"another table, {[*found.shape]}", "the paper's noise levels [B.13]")
