"""Checkpoints of PixArt's own layout: diffusers' network with their weights is the original one; the unsound ones."""

import os

import pytest
import torch
from edm_files import Evil
from original_pixart import OriginalPixArt, positions
from tiny_models import PIXART

from simdistill.teachers.families.pixart_checkpoint import read_pixart

diffusers = pytest.importorskip("diffusers")

WIDE = {
    "num_attention_heads": 3,
    "cross_attention_dim": 24,
    "use_additional_conditions": True,
    "interpolation_scale": 2,
}


def network(**more):
    torch.manual_seed(3)
    return diffusers.PixArtTransformer2DModel(**PIXART | more).eval()


def ema_of(original, prefix="module.model."):
    return {prefix + name: tensor.clone() for name, tensor in original.state_dict().items()}


def write(path, content, **how):
    torch.save(content, path, **how)
    return path


# ---- sound ones


@pytest.mark.parametrize("prefix", ["module.model.", "module.", ""])
@pytest.mark.parametrize("sizes", [False, True], ids=["512", "1024"])
def test_the_answers_are_the_original_networks(tmp_path, sizes, prefix, rng):
    original = OriginalPixArt(width=24, heads=3, sizes=True, zoom=2) if sizes else OriginalPixArt()
    model = network(**WIDE if sizes else {})
    x, time = torch.randn(3, 4, 8, 8, generator=rng), torch.tensor([0, 440, 999])
    states, mask = torch.randn(3, 5, 16, generator=rng), torch.arange(5) < torch.tensor([[3], [5], [1]])
    size, ratio = torch.tensor([[16.0, 24.0]] * 3), torch.tensor([[2 / 3]] * 3)
    told = {"resolution": size, "aspect_ratio": ratio} if sizes else dict.fromkeys(("resolution", "aspect_ratio"))
    expected = original(x, time, states, mask, *((size, ratio) if sizes else ()))

    def difference():
        with torch.no_grad():
            found = model(x, states, time, told, encoder_attention_mask=mask.long(), return_dict=False)[0]
        return (found - expected).abs().max()

    assert difference() > 0.1
    read_pixart(write(tmp_path / "g.pth", {"ema": ema_of(original, prefix), "step": 7}), model)
    assert difference() < 1e-5


def published_levels():
    """[B.13] step by step, in float32."""
    u = torch.zeros(1001)
    for j in range(1000, 0, -1):
        u[j - 1] = ((u[j] ** 2 + 1) / (1 - (0.02 - 0.0199 * j / 1000)) - 1).sqrt()
    return u


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_numbers_of_any_precision_and_a_table_of_levels(tmp_path, dtype):
    original, model = OriginalPixArt(), network()
    ema = ema_of(original) | {"module.u": published_levels()}
    read_pixart(write(tmp_path / "g.pth", {"ema": {name: t.to(dtype) for name, t in ema.items()}}), model)
    q, k, v = original.blocks[1].attn.qkv.weight.to(dtype).float().chunk(3)
    attention = model.transformer_blocks[1].attn1
    assert torch.equal(attention.to_q.weight, q)
    assert torch.equal(attention.to_k.weight, k)
    assert torch.equal(attention.to_v.weight, v)
    torch.testing.assert_close(model.pos_embed.pos_embed, original.pos_embed, rtol=0, atol=1e-6)  # not rounded
    assert {p.dtype for p in model.state_dict().values()} == {torch.float32}


# ---- unsound ones


def usual_levels():
    """Those of DDPM's 1,000 linear betas, the largest first: not the paper's."""
    kept = (1 - torch.linspace(0.0001, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    return torch.cat([((1 - kept) / kept).sqrt().flip(0), torch.zeros(1)])


def without(name):
    return lambda ema: {key: tensor for key, tensor in ema.items() if key != f"module.model.{name}"}


def having(name, value):
    return lambda ema: ema | {f"module.model.{name}": value}


WHOSE = "must be those of the teacher's network"
UNSOUND = {
    "a missing bias": (without("blocks.1.attn.qkv.bias"), rf"1 tensor is missing, such as blocks.1.attn.*; {WHOSE}"),
    "a missing table": (without("final_layer.scale_shift_table"), "is missing, such as final_layer.scale_shift_table"),
    "no positions": (without("pos_embed"), rf"1 tensor is missing, such as pos_embed; {WHOSE}"),
    "a third block": (having("blocks.2.attn.proj.bias", torch.ones(16)), "is unknown, such as blocks.2.attn.proj.bias"),
    "of 1024 pixels": (having("csize_embedder.mlp.0.bias", torch.ones(5)), "such as csize_embedder.mlp.0.bias"),
    "another shape": (
        having("blocks.0.cross_attn.kv_linear.weight", torch.ones(16, 16)),
        r"shape of blocks.0.cross_attn.kv_linear.weight = \[16, 16\]: must be \[32, 16\], as in the teacher's network",
    ),
    "a shape that broadcasts": (having("t_block.1.bias", torch.ones(1)), r"t_block.1.bias = \[1\]: must be \[96\]"),
    "positions of zeros": (having("pos_embed", torch.zeros(1, 16, 16)), "pos_embed = 'another table"),
    "positions half as far": (having("pos_embed", positions(4, 16, 2)), "pos_embed = 'another table"),
    "positions by column": (
        having("pos_embed", positions(4, 16).unflatten(1, (4, 4)).transpose(1, 2).flatten(1, 2)),
        "pos_embed = 'another table",
    ),
    "more positions": (having("pos_embed", positions(8, 16)), r"pos_embed = \[1, 64, 16\]: must be \[1, 16, 16\]"),
    "usual levels": (having("u", usual_levels()), r"u = 'another table, \[1001\]': must be the paper's noise levels"),
    "few levels": (having("u", torch.ones(3)), r"u = 'another table, \[3\]'"),
    "a name twice": (lambda ema: ema | {"t_block.1.bias": torch.ones(96)}, "t_block.1.bias = 'there twice'"),
    "a number": (having("step", 5), "step = 'int': must be a tensor of floating-point numbers"),
    "whole numbers": (having("t_block.1.bias", torch.ones(96).long()), "must be a tensor of floating-point numbers"),
    "sparse numbers": (having("t_block.1.bias", torch.ones(96).to_sparse()), "has a tensor of layout torch.sparse_coo"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNSOUND)
def test_what_does_not_fit_is_named_and_nothing_is_changed(tmp_path, case):
    change, said = UNSOUND[case]
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    path = write(tmp_path / "g.pth", {"ema": change(ema_of(OriginalPixArt()))})
    with pytest.raises(ValueError, match=said) as caught:
        read_pixart(path, model)
    assert str(caught.value).startswith(f"{path}: ")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_smaller_checkpoint_is_told_how_much_is_missing(tmp_path):
    path = write(tmp_path / "g.pth", {"ema": ema_of(OriginalPixArt(depth=1))})
    with pytest.raises(ValueError, match=rf"15 tensors are missing, such as blocks\.1\.attn\.proj\.bias; {WHOSE}"):
        read_pixart(path, network())


def test_a_network_that_is_more_than_pixarts(tmp_path):
    model = network(attention_type="gated")
    path = write(tmp_path / "g.pth", {"ema": ema_of(OriginalPixArt())})
    with pytest.raises(ValueError, match=r"teacher: tensors = \['transformer_blocks.0.fuser.*PixArt"):
        read_pixart(path, model)


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        ({"state_dict": {}, "epoch": 3}, "keys: state_dict, epoch"),
        ({"ema": torch.ones(3)}, "keys: ema"),
        ([1, 2], "keys: none"),
    ],
)
def test_files_without_a_state_dict_under_ema(tmp_path, content, keys):
    path = write(tmp_path / "g.pth", content)
    with pytest.raises(ValueError, match=rf"g.pth: has no state dict under the key 'ema' \({keys}\)"):
        read_pixart(path, network())


def test_damaged_files_and_none(tmp_path):
    path = write(tmp_path / "g.pth", {"ema": ema_of(OriginalPixArt())})
    whole = path.read_bytes()
    for cut in (0, 1000, len(whole) - 50):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"g.pth: damaged, or without tensors \([\w. ]+\); download it again"):
            read_pixart(path, network())
    with pytest.raises(ValueError, match=r"none.pth: no such file"):
        read_pixart(tmp_path / "none.pth", network())


# ---- hostile ones

EVIL = Evil(os.system, "touch marker")
PLACES = {
    "the whole": lambda ema: EVIL,
    "ema": lambda ema: {"ema": EVIL},
    "a tensor": lambda ema: {"ema": ema | {"module.model.t_block.1.bias": EVIL}},
    "a name": lambda ema: {"ema": {EVIL: torch.ones(1)}},
    "beside": lambda ema: {"ema": ema, "options": EVIL},
}


@pytest.mark.parametrize("as_zip", [True, False])
@pytest.mark.parametrize("place", PLACES)
def test_code_in_a_file_does_not_run(tmp_path, monkeypatch, place, as_zip):
    monkeypatch.chdir(tmp_path)
    content = PLACES[place](ema_of(OriginalPixArt()))
    path = write(tmp_path / "g.pth", content, _use_new_zipfile_serialization=as_zip)
    name = rf"{os.system.__module__}\.system"
    with pytest.raises(
        ValueError, match=rf"g.pth: asks for '{name}', which weights do not need.*nothing in it was executed"
    ):
        read_pixart(path, network())
    assert not (tmp_path / "marker").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "marker").exists()  # as it would have
