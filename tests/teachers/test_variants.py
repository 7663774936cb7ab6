"""Folders of weights in variants, as hubs have them: whole, in shards, several of them, and of text encoders."""

import copy

import pytest
import torch
from text_encoders import PROMPTS, pipeline
from tiny_models import scheduler, unet

from simdistill.teachers.diffusers_files import variant_of
from simdistill.teachers.encoders import load_encoder
from simdistill.teachers.loading import load_teacher

STATE = torch.linspace(-1, 1, 2 * 3 * 64).reshape(2, 3, 8, 8)
NAME = "diffusion_pytorch_model"


def folder_of(path, *variants, **how):
    """A folder with a network in each variant, of its own weights: those without a name, or in a precision."""
    for variant in variants:
        model = unet()
        for p in model.parameters():
            p.data += {"": 0.0, "fp32": 0.01, "fp16": 0.02, "bf16": 0.03}[variant]
        kind = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(variant, torch.float32)
        model.to(kind).save_pretrained(path / "unet", variant=variant or None, **how)
    scheduler().save_pretrained(path / "scheduler")
    return path


def answer(folder):
    """What the teacher's network makes of `STATE`."""
    with torch.no_grad():
        return load_teacher(str(folder)).denoiser.network(STATE, torch.tensor([3, 4]), None)


def expected(variant):
    model = unet()
    for p in model.parameters():
        p.data += {"": 0.0, "fp32": 0.01, "fp16": 0.02}[variant]
    model = model.half().float() if variant == "fp16" else model
    with torch.no_grad():
        return model.eval()(STATE, torch.tensor([3, 4])).sample


def renamed(folder):
    """The shards as diffusers named them before 0.31, with the variant after the number."""
    index = folder / "unet" / f"{NAME}.safetensors.index.fp16.json"
    text = index.read_text()
    for shard in folder.glob(f"unet/{NAME}.fp16-*"):
        former = shard.name.replace(".fp16-", "-").replace(".safetensors", ".fp16.safetensors")
        text = text.replace(shard.name, former)
        shard.rename(shard.with_name(former))
    index.write_text(text)


@pytest.mark.parametrize(
    ("variants", "how", "read"),
    [
        (["fp16"], {}, "fp16"),
        (["fp16"], {"safe_serialization": False}, "fp16"),
        (["fp16"], {"max_shard_size": "20KB"}, "fp16"),
        (["", "fp16"], {}, ""),
        (["fp16", "fp32"], {}, "fp32"),
        (["bf16", "fp32"], {"max_shard_size": "20KB"}, "fp32"),
    ],
)
def test_the_fullest_weights_are_read(tmp_path, variants, how, read, capsys):
    folder = folder_of(tmp_path, *variants, **how)
    if "max_shard_size" in how:
        assert len([*folder.glob("unet/*-of-*")]) > 2
    capsys.readouterr()
    torch.testing.assert_close(answer(folder), expected(read), rtol=0, atol=1e-6)
    said, others = capsys.readouterr().err, [variant for variant in variants if variant != read]
    what = f"the variant {read} is read" if read else "the weights without a variant are read"
    assert said == (f"{folder / 'unet'}: {what}, not {others[0]}\n" if others else "")


def test_shards_with_the_number_before_the_variant(tmp_path):
    renamed(folder_of(tmp_path, "fp16", max_shard_size="20KB"))
    assert variant_of(tmp_path / "unet") == "fp16"
    torch.testing.assert_close(answer(tmp_path), expected("fp16"), rtol=0, atol=1e-6)


def test_a_choice_between_equals_is_the_users(tmp_path):
    folder = folder_of(tmp_path, "fp16", "bf16")
    with pytest.raises(ValueError, match=r"variants of its weights = \['bf16', 'fp16'\]: must be one: move"):
        load_teacher(str(folder))
    (folder / "unet" / f"{NAME}.bf16.safetensors").unlink()
    torch.testing.assert_close(answer(folder), expected("fp16"), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["StableDiffusionXLPipeline", "PixArtAlphaPipeline"])
def test_a_whole_pipeline_in_a_variant(tmp_path, name):
    """Network, autoencoder and text encoders, in half precision."""
    plain, half = tmp_path / "plain", tmp_path / "half"
    whole = pipeline(name, plain)
    copy.deepcopy(whole).to(dtype=torch.float16).save_pretrained(half, variant="fp16")
    assert not [path for path in half.rglob("*.safetensors") if ".fp16" not in path.name]
    ours, theirs = load_encoder(str(half))(PROMPTS), load_encoder(str(plain))(PROMPTS)
    torch.testing.assert_close(ours.prompt_embeds, theirs.prompt_embeds, rtol=0, atol=2e-2)
    one, other = load_teacher(str(half)), load_teacher(str(plain))
    z = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(one.decoded(z), other.decoded(z), rtol=0, atol=5e-2)
    (half / "vae" / f"{NAME}.fp16.safetensors").rename(half / "vae" / f"{NAME}.safetensors")  # of one part alone
    assert torch.equal(load_teacher(str(half)).decoded(z), one.decoded(z))


def test_text_encoders_of_several_variants(tmp_path):
    whole = pipeline("StableDiffusionXLPipeline", tmp_path)
    for part, variant in (("text_encoder", "fp16"), ("text_encoder_2", "bf16")):
        for path in (tmp_path / part).glob("model*"):
            path.unlink()
        getattr(whole, part).save_pretrained(tmp_path / part, variant=variant)
    with pytest.raises(ValueError, match=r"variants of its text encoders = \['bf16', 'fp16'\]: must be the same"):
        load_encoder(str(tmp_path))
