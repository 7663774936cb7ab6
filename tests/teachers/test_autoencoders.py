"""Latents: an autoencoder's calls are diffusers', features see pictures, and a teacher trained on them decodes."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import autoencoder

from simdistill.cli import main
from simdistill.evaluation.extractors import PIXELS, Extractor
from simdistill.teachers import autoencoders
from simdistill.teachers.autoencoders import Autoencoder
from simdistill.teachers.loading import load_teacher

diffusers = pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of an AutoencoderKL that halves pictures into four channels."""
    path = tmp_path_factory.mktemp("vae")
    autoencoder(scaling_factor=0.5, shift_factor=0.1).save_pretrained(path)
    return path


def test_latents_and_pictures_are_diffusers_own(folder, monkeypatch, rng):
    theirs = diffusers.AutoencoderKL.from_pretrained(folder)
    pictures = torch.rand(5, 3, 8, 8, generator=rng) * 2 - 1
    for at_once in (autoencoders.VALUES, 2 * 3 * 8 * 8):  # whole, and in parts
        monkeypatch.setattr(autoencoders, "VALUES", at_once)
        latents = Autoencoder(folder).latents(pictures)
        with torch.no_grad():
            torch.testing.assert_close(latents, 0.5 * (theirs.encode(pictures).latent_dist.mean - 0.1))
            torch.testing.assert_close(Autoencoder(folder)(latents), theirs.decode(2 * latents + 0.1).sample)


def test_features_see_the_pictures_of_latents():
    means = Extractor("means", lambda pictures: pictures.mean((2, 3)))
    latents = torch.arange(8.0).reshape(2, 1, 2, 2)
    seen = means.after(lambda z: z.repeat(1, 3, 1, 1) + 1).features(latents)
    assert seen.tolist() == [[2.5] * 3, [6.5] * 3]
    assert means.after(None) is means
    assert PIXELS.after(lambda z: z + 1) is PIXELS


def test_a_teacher_of_latents(folder, tmp_path, coarse, capsys):
    """Judged by its pictures, as its student is; a .npy has the latents, a .png the pictures."""
    images, rng = tmp_path / "images", np.random.default_rng(0)
    for kind in ("a", "b"):
        (images / kind).mkdir(parents=True)
        for k in range(20):
            pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(images / kind / f"{k}.png")
    classifier, teacher, run = (tmp_path / name for name in ("c.safetensors", "teacher", "run"))
    assert main(["features", str(images), "--out", str(classifier), "--features", "4", "--iterations", "2"]) == 0
    judged = ["--features", str(classifier), "--iterations", "4", "--batch", "8"]
    command = ["pretrain", "digits", "--data", str(images), "--autoencoder", str(folder), "--out", str(teacher)]
    assert main([*command, "--width", "16", "--depth", "1", *judged]) == 0
    found = load_teacher(str(teacher / "generator.safetensors"))
    assert (found.shape, found.classes) == ((4, 4, 4), 2)

    named = ["--teacher", str(teacher / "generator.safetensors"), "--out", str(run)]
    assert main(["distill", "digits", *named, *judged, "--evaluation-samples", "10"]) == 0
    for generator in (run, run / "generator.safetensors"):
        drawn = tmp_path / "drawn"
        assert main(["sample", str(generator), "--seeds", "0-2", "--out", str(drawn) + ".npy"]) == 0
        latents = torch.from_numpy(np.load(str(drawn) + ".npy"))
        assert latents.shape == (3, 4, 4, 4)
        assert main(["sample", str(generator), "--seeds", "0-2", "--out", str(drawn)]) == 0
        pictures = (Autoencoder(folder)(latents).clamp(-1, 1) + 1) * 127.5
        for k in range(3):
            shown = np.asarray(Image.open(drawn / f"{k:06d}.png")).transpose(2, 0, 1).astype(float)
            assert np.abs(shown - pictures[k].numpy()).max() <= 1.5
    assert main([*command, *judged, "--overwrite", "--autoencoder", str(tmp_path)]) == 2
    assert "must be the folder of" in capsys.readouterr().err
