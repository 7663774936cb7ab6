"""`pretrain --data IMAGES`, without a recipe's name: a network that fits the images, whatever their size."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from simdistill.cli import main
from simdistill.runs.folder import RunFolder
from simdistill.teachers.loading import load_teacher
from simdistill.training.pretraining import Pretraining
from simdistill.workflows.auto_images import pretraining_for
from simdistill.workflows.pretraining import settings_of


def folder(path, side, channels=3, count=6, classes=2):
    """Noise in class folders."""
    rng = np.random.default_rng(side)
    for k in range(count):
        place = path / f"class-{k % classes}"
        place.mkdir(parents=True, exist_ok=True)
        picture = rng.integers(0, 256, (side, side, channels), dtype=np.uint8)
        Image.fromarray(picture[:, :, 0] if channels == 1 else picture).save(place / f"{k}.png")
    return str(path)


@pytest.mark.parametrize(
    ("side", "edge", "patch"),
    [
        (12, 12, 1),
        (16, 16, 1),
        (24, 24, 2),
        (28, 32, 2),
        (32, 32, 2),
        (33, 48, 3),
        (48, 48, 3),
        (64, 64, 4),
        (10, 12, 1),
    ],
)
def test_the_network_halves_what_it_sees(tmp_path, side, edge, patch):
    settings, choices = pretraining_for(Pretraining(data=folder(tmp_path, side)))
    assert (settings.network, max(settings.pad, side), settings.patch) == ("unet", edge, patch)
    with torch.device("meta"):
        net = settings.build((3, edge, edge), 2, 0.5)
        x, sigma, labels = torch.ones(2, 3, edge, edge), torch.ones(2), torch.zeros(2, dtype=torch.long)
        assert net(x, sigma, labels).shape == x.shape
    assert {choice.name for choice in choices} >= {"network", "patch", "iterations", "features"}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_size_gets_a_network(device, tmp_path):
    """The settings build for all sides, and what is asked for a GPU needs none."""
    for side in range(9, 70, 15) if device == "cpu" else (9, 30, 69):
        settings, _ = pretraining_for(Pretraining(data=folder(tmp_path / str(side), side, count=2)), device)
        with torch.device("meta"):
            edge = max(side, settings.pad)
            settings.build((3, edge, edge), 2, 0.5)
        assert edge - side < 16 or (device == "cuda" and edge - side < 64)
        assert edge // settings.patch <= {"cpu": 16, "cuda": 64}[device]


def test_options_stay_and_the_others_follow(tmp_path):
    base = Pretraining(data=folder(tmp_path, 16), iterations=1000, batch=8)
    settings, choices = pretraining_for(base, given={"data", "iterations", "batch"})
    assert (settings.iterations, settings.batch, settings.ema_half_life) == (1000, 8, 800)
    assert not {"iterations", "batch"} & {choice.name for choice in choices}


def test_tiny_images_get_the_mlp():
    settings, _ = pretraining_for(Pretraining(data="digits"))
    assert (settings.network, settings.features, settings.batch) == ("mlp", "digits", 256)
    assert settings.iterations == 8000


def test_a_folder_becomes_a_teacher(tmp_path, capsys, coarse):
    words = [
        "pretrain",
        "--data",
        folder(tmp_path / "pictures", 12),
        "--iterations",
        "2",
        "--batch",
        "4",
        "--width",
        "4",
        "--json",
    ]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    out = capsys.readouterr()
    assert "network" in out.err
    assert "3×12×12" in out.err
    assert "simdistill features" in out.err
    assert set(json.loads(out.out)) >= {"frechet"}
    kept = settings_of(RunFolder(tmp_path / "run"))
    assert (kept.network, kept.iterations, kept.batch, kept.features, kept.attention) == ("unet", 2, 4, "pixels", (6,))
    assert load_teacher(str(tmp_path / "run" / "generator.safetensors")).shape == (3, 12, 12)


def test_what_it_cannot_do_is_said(tmp_path, capsys):
    Image.new("RGB", (40, 70)).save(tmp_path / "one.png")
    assert main(["pretrain", "--data", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "3×70×40" in told
    assert f"simdistill convert {tmp_path} OUT.zip --crop centre --size 32" in told
    assert main(["pretrain", "--data", "digits", "--prompts", "x"]) == 2
    assert "--prompts" in capsys.readouterr().err
    assert main(["pretrain"]) == 2
