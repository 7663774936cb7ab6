"""A published checkpoint as a file of this package, images as a zip: the same answers, nothing overwritten."""

import hashlib
import json
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from edm_files import dumps, tree

from simdistill.cli import main
from simdistill.config.recipes import RECIPES
from simdistill.config.settings import read_toml
from simdistill.data.images import array_set, open_images
from simdistill.data.packing import write_zip
from simdistill.method.preconditioning import VPScaling
from simdistill.networks.unet import SongUNet
from simdistill.runs.folder import RunFolder
from simdistill.support.tensors import read_tensors
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.weights import read_network, write_network
from simdistill.training.trainer import DistillationTrainer
from simdistill.workflows import models
from simdistill.workflows.converting import convert_images, convert_teacher

SETTINGS = {
    "img_resolution": 8,
    "in_channels": 3,
    "out_channels": 3,
    "label_dim": 10,
    "model_channels": 8,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
    "dropout": 0.13,
}


@pytest.fixture
def checkpoint(tmp_path):
    """A file as EDM publishes them, of a small class-conditional network under the VP preconditioning."""
    torch.manual_seed(0)
    path = tmp_path / "edm-tiny-cond-vp.pkl"
    path.write_bytes(dumps(tree(SongUNet(**SETTINGS), SETTINGS, "VPPrecond", {"beta_d": 15.0})))
    return path


def test_a_pkl_is_a_teacher(checkpoint):
    teacher = load_teacher(str(checkpoint))
    assert (teacher.shape, teacher.classes, teacher.judged.data) == ((3, 8, 8), 10, None)
    assert teacher.name == str(checkpoint)
    assert teacher.sigma_min == 0.002
    assert teacher.sigma_max == pytest.approx(44.69, rel=1e-3)
    teacher.check()
    assert teacher.trainable is teacher.denoiser


def test_a_pkl_is_distilled(checkpoint):
    """An iteration of both updates; the teacher, whose tensors came from the file, stays as it is."""
    teacher = load_teacher(str(checkpoint))
    before = {name: tensor.clone() for name, tensor in teacher.denoiser.state_dict().items()}
    teacher.check()
    recipe = replace(RECIPES["cifar10-cond"], batch=4, gradient_accumulation=2, generator_lr=1e-3, online_lr=1e-3)
    trainer = DistillationTrainer(teacher, recipe)
    start = trainer.snapshot().denoiser.state_dict()["model.map_layer0.weight"].clone()
    trainer.step()
    assert not torch.equal(trainer.snapshot().denoiser.state_dict()["model.map_layer0.weight"], start)
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.denoiser.state_dict().items())


def test_both_files_give_equal_answers_and_the_new_one_says_where_it_is_from(checkpoint, tmp_path):
    out = tmp_path / "new" / "tiny.safetensors"
    facts = convert_teacher(checkpoint, out)
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    _, stored = read_network(out)
    assert stored == {"source": "edm-tiny-cond-vp.pkl", "sha256": digest}
    assert facts == {
        "out": str(out),
        "network": "SongUNet",
        "preconditioning": "VPScaling",
        **{"beta_d": 15.0, "beta_min": 0.1, "steps": 1000},
        **{"shape": [3, 8, 8], "classes": 10, "parameters": sum(p.numel() for p in SongUNet(**SETTINGS).parameters())},
        **stored,
    }
    header = json.loads(read_tensors(out)[1]["simdistill"])["denoiser"]
    assert header["network"] == "SongUNet"
    assert header["arguments"] == SongUNet(**SETTINGS).arguments
    assert header["scaling"] == {"name": "VPScaling", "beta_d": 15.0, "beta_min": 0.1, "steps": 1000}

    old, new = load_teacher(str(checkpoint)), load_teacher(str(out))
    assert (new.shape, new.classes, new.sigma_min, new.sigma_max) == (
        *(old.shape, old.classes),
        *(old.sigma_min, old.sigma_max),
    )
    assert new.denoiser.scaling == VPScaling(beta_d=15.0)
    x, sigma, labels = torch.randn(4, 3, 8, 8), torch.tensor([0.002, 0.1, 1.0, 40.0]), torch.tensor([0, 1, 2, 9])
    assert torch.equal(old.denoiser(x, sigma, labels), new.denoiser(x, sigma, labels))
    assert torch.equal(old.denoiser.residual(x, sigma, labels), new.denoiser.residual(x, sigma, labels))


def test_the_command_prints_what_it_wrote(checkpoint, tmp_path, capsys):
    out = tmp_path / "tiny.safetensors"
    assert main(["convert", str(checkpoint), str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == convert_teacher(checkpoint, out, overwrite=True)
    assert main(["convert", str(checkpoint), str(out), "--overwrite"]) == 0
    shown = capsys.readouterr().out
    assert shown == f"{out}: SongUNet with {printed['parameters']:,} parameters, VPScaling, samples 3×8×8, 10 classes\n"


def test_bad_requests_are_answered_with_one_line(checkpoint, tmp_path, refused):
    out = tmp_path / "tiny.safetensors"
    out.write_bytes(b"precious")

    error = partial(refused, "convert")

    assert f"out = '{out}': must be a new file; give another, or --overwrite it" in error(checkpoint, out)
    assert "must be EDM's .pkl" in error(out, tmp_path / "y.safetensors")
    assert "y.ckpt': must be a .safetensors file" in error(checkpoint, tmp_path / "y.ckpt")
    assert "no.pkl: no such file" in error(tmp_path / "no.pkl", tmp_path / "y.safetensors")
    assert "FILE.pkl, FILE.pth or IMAGES is missing" in error()
    assert "FILE.safetensors, RUN or FILE.zip is missing; write `simdistill convert SOURCE" in error(checkpoint)
    assert "y.zip': must be digits, or an existing .zip" in error(tmp_path / "y.zip", tmp_path / "z.zip")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    assert "edm-tiny-cond-vp.pkl: is not a complete pickle" in error(checkpoint, out, "--overwrite")
    assert out.read_bytes() == b"precious"
    assert {path.name for path in tmp_path.iterdir()} == {checkpoint.name, out.name}


@pytest.mark.slow
def test_a_recipe_is_planned_for_a_pkl_and_its_run_finds_the_file_again(checkpoint, tmp_path, capsys):
    config = tmp_path / "mine.toml"
    config.write_text("batch = 16\n")
    words = ["distill", "cifar10-uncond", "--teacher", str(checkpoint), "--config", str(config), "--dry-run", "--json"]
    assert main(words) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["recipe"]["teacher"] == str(checkpoint)
    assert plan["recipe"]["batch"] == 16
    assert plan["parameters"] == sum(p.numel() for p in SongUNet(**SETTINGS).parameters())

    asked = plan["recipe"] | {"verb": "distill"}
    run = RunFolder.create(tmp_path / "run", asked)
    assert read_toml(run.config)["teacher"] == str(checkpoint)
    assert models.teacher_of(run).shape == (3, 8, 8)


def test_half_precision_halves_the_file_and_rounds_the_weights(checkpoint, tmp_path):
    whole, half, again = (tmp_path / f"{name}.safetensors" for name in ("whole", "half", "again"))
    convert_teacher(checkpoint, whole)
    convert_teacher(checkpoint, half, half=True)
    assert half.stat().st_size < 0.6 * whole.stat().st_size  # headers are as long
    assert main(["convert", str(whole), str(again), "--half"]) == 0
    exact, rounded = (read_network(path)[0].state_dict() for path in (whole, half))
    for name, tensor in exact.items():
        assert torch.equal(rounded[name], tensor if "resample_filter" in name else tensor.half().float())
    assert all(torch.equal(rounded[name], tensor) for name, tensor in read_network(again)[0].state_dict().items())
    assert read_network(again)[1]["source"] == "whole.safetensors"
    x, sigma, labels = torch.randn(4, 3, 8, 8), torch.tensor([0.01, 0.1, 1.0, 40.0]), torch.tensor([0, 1, 2, 9])
    one, other = (load_teacher(str(path)).denoiser(x, sigma, labels) for path in (whole, half))
    assert 0 < (one - other).norm() < 1e-3 * one.norm()


def test_weights_beyond_half_precision_are_refused(checkpoint, tmp_path):
    denoiser, _ = read_network(Path(convert_teacher(checkpoint, tmp_path / "whole.safetensors")["out"]))
    denoiser.model.map_layer0.weight.data[0, 0] = 1e5
    write_network(tmp_path / "large.safetensors", denoiser)
    with pytest.raises(ValueError, match=r"largest weight of model.map_layer0.weight = 'above 65,504'"):
        convert_teacher(tmp_path / "large.safetensors", tmp_path / "half.safetensors", half=True)
    assert not (tmp_path / "half.safetensors").exists()


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_become_a_zip_of_the_same_bytes(tmp_path, channels, labelled):
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (1203, channels, 4, 4), generator=rng, dtype=torch.uint8)
    pixels[0, 0, 0] = torch.tensor([0, 1, 254, 255])
    labels = torch.randint(0, 7, (1203,), generator=rng) if labelled else None
    written: list[int] = []
    write_zip(tmp_path / "new" / "set.zip", array_set("a set", pixels.float() / 127.5 - 1, labels), written.append)
    assert sum(written) == 1203
    with zipfile.ZipFile(tmp_path / "new" / "set.zip") as archive:
        assert archive.namelist()[1201:] == ["00001/img00001201.png", "00001/img00001202.png", "dataset.json"]
        listing = json.loads(archive.read("dataset.json"))["labels"]
        assert listing == (
            [[name, k] for name, k in zip(archive.namelist(), labels.tolist(), strict=False)] if labelled else None
        )
    images = open_images(tmp_path / "new" / "set.zip")
    assert torch.equal(images.read(range(1203)), pixels)
    assert torch.equal(images.labels, labels) if labelled else images.labels is None


def test_the_digits_as_a_zip(tmp_path, capsys):
    out = tmp_path / "digits.zip"
    assert main(["convert", "digits", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: 1,348 images 1×8×8, 10 classes\n"
    before, after = open_images("digits"), open_images(out)
    assert torch.equal(before.labels, after.labels)
    assert (before.batch(range(1348)) - after.batch(range(1348))).abs().max() <= 1 / 255 + 1e-6  # theirs have 16 greys
    with pytest.raises(ValueError, match="must be a new file; give another, or --overwrite it"):
        convert_images("digits", out)
    with pytest.raises(ValueError, match=r"shape of vectors = \(2,\): must be that of images"):
        write_zip(tmp_path / "no.zip", array_set("vectors", torch.zeros(3, 2)))
    assert [path.name for path in tmp_path.iterdir()] == ["digits.zip"]
