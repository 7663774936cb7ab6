"""The gallery: its pictures, its figures, and that a density that is done stays done."""

import io
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from simdistill.cli import main
from simdistill.config.recipes import RECIPES
from simdistill.data.densities import gaussians_8
from simdistill.evaluation.sampling import Sampler
from simdistill.gallery import figures as measured
from simdistill.gallery import making
from simdistill.gallery.drawing import animation, beside
from simdistill.gallery.figures import figures_of
from simdistill.gallery.frames import LEVEL, Frame, frame_of, grid, read_frames, write_frame
from simdistill.method.denoisers import GaussianMixture
from simdistill.runs.folder import RunFolder
from simdistill.teachers.loading import load_teacher
from simdistill.training.loop import Interrupted
from simdistill.training.pretraining import Pretraining
from simdistill.training.trainer import DistillationTrainer
from simdistill.workflows import proxy


def frames(count, rng):
    return [
        Frame(10 * k, torch.randn(2000, 2, generator=rng), 0.1 * torch.randn(len(grid()), 2, generator=rng))
        for k in range(count)
    ]


@pytest.fixture
def small(monkeypatch):
    """Small networks, short trainings, few samples: what is looked at is that everything is there."""
    monkeypatch.setattr(proxy, "PROXY", Pretraining(width=16, depth=1, iterations=20, batch=64))
    monkeypatch.setattr(proxy, "PROXY_SAMPLES", 500)
    monkeypatch.setattr(making, "FRAMES", 3)
    monkeypatch.setattr(measured, "SAMPLES", 500)
    monkeypatch.setattr(measured, "PAIRED", 200)


def test_frames_are_read_back_in_the_order_of_the_training(tmp_path, rng):
    first, second, third = frames(3, rng)
    for frame in (third, first, second):
        write_frame(tmp_path, frame)
    for found, frame in zip(read_frames(tmp_path), (first, second, third), strict=True):
        assert found.iteration == frame.iteration
        torch.testing.assert_close(found.samples, frame.samples, rtol=0, atol=0)
        torch.testing.assert_close(found.pull, frame.pull, rtol=0, atol=0)


def test_a_frame_holds_what_the_teacher_pulls_more_than_the_online_network():
    """The online network starts as the best linear denoiser, whose residual at level sigma is known."""
    teacher = load_teacher("gaussians-8")
    start = Pretraining(width=16, depth=1).build((2,), 0, sigma_data=1.4)
    frame = frame_of(DistillationTrainer(teacher, RECIPES["densities"], start), teacher.denoiser)
    x_t = grid()
    linear = -(LEVEL**2) / (LEVEL**2 + 1.4**2) * x_t
    expected = teacher.denoiser.residual(x_t, torch.full((len(x_t),), LEVEL)) - linear
    torch.testing.assert_close(frame.pull, expected, rtol=1e-4, atol=1e-5)
    assert (frame.iteration, frame.samples.shape) == (0, (2000, 2))


def test_an_animation_has_its_frames_and_is_small(rng):
    content = animation(frames(4, rng), gaussians_8())
    with Image.open(io.BytesIO(content)) as film:
        assert (film.format, film.n_frames, film.size) == ("WEBP", 4, (420, 420))
        first = np.asarray(film.convert("RGB")).astype(int)
        film.seek(3)
        last = np.asarray(film.convert("RGB")).astype(int)
    assert np.abs(first - last).max() > 100
    assert len(content) < 2_000_000


def test_an_animation_that_would_be_too_large_is_made_smaller(rng, monkeypatch):
    monkeypatch.setattr("simdistill.gallery.drawing.LARGEST", 1000)
    content = animation(frames(5, rng), gaussians_8())
    with Image.open(io.BytesIO(content)) as film:
        assert film.n_frames == 3  # every other one


def test_student_and_truth_stand_side_by_side(rng):
    cloud = 0.3 * torch.randn(2000, 2, generator=rng)
    left, right = cloud - 1.5, cloud + 1.5
    with Image.open(io.BytesIO(beside(left, right, 1))) as picture:
        assert (picture.format, picture.size) == ("PNG", (840, 441))
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    orange, blue = pixels[..., 0] - pixels[..., 2] > 60, pixels[..., 2] - pixels[..., 0] > 60
    assert orange[220:, :420].any()  # below the middle of the left panel, and nowhere on the right
    assert not orange[:, 420:].any()
    assert blue[:220, 420:].any()
    assert not blue[:, :420].any()


def test_the_figures_tell_the_truth_from_a_student_that_lost_a_mode(monkeypatch):
    monkeypatch.setattr(measured, "SAMPLES", 2000)
    monkeypatch.setattr(measured, "PAIRED", 1000)
    mixture = GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), 0.01 * torch.eye(2)[None])
    found = figures_of({"student": Sampler(lambda z, rows: torch.tensor([1.0, 0.0]) + 0.1 * z, nfe=1)}, mixture)
    exact, student = found["exact"], found["student"]
    assert [one["modes_found"]["values"] for one in (exact, student)] == [[2.0], [1.0]]
    assert student["samples"] == 10_000
    assert student["mass_deviation"]["mean"] == pytest.approx(1.0)
    assert exact["mass_deviation"]["mean"] < 0.05
    assert student["within_4_sigma"]["mean"] > 0.999  # what it has is good
    assert student["energy"]["mean"] > 20 * exact["energy"]["mean"]
    assert student["sliced_wasserstein"]["mean"] > 5 * exact["sliced_wasserstein"]["mean"]
    assert len(student["energy"]["values"]) == 5


def test_a_gallery_that_is_stopped_goes_on_and_what_is_done_stays_done(tmp_path, small, monkeypatch, capsys):
    out = tmp_path / "gallery"
    words = ["gallery", "gaussians-8", "rings", "--iterations", "6", "--objective", "DiffInstruct", "--json"]
    step = DistillationTrainer.step

    def stopped(self):
        if "rings" in str(self.recipe.teacher):
            raise Interrupted("stopped", "SIGTERM")
        step(self)

    monkeypatch.setattr(DistillationTrainer, "step", stopped)
    assert main([*words, "--out", str(out)]) == 75
    assert "the same command resumes" in capsys.readouterr().err
    assert "gaussians-8" in (out / "gallery.html").read_text()
    assert "<h2>rings" not in (out / "gallery.html").read_text()
    done = (out / "gaussians-8" / "figures.json").stat().st_mtime_ns
    monkeypatch.setattr(DistillationTrainer, "step", step)
    assert main([*words, "--out", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["densities"]) == ["gaussians-8", "rings"]
    assert (out / "gaussians-8" / "figures.json").stat().st_mtime_ns == done
    assert [frame.iteration for frame in read_frames(out / "rings" / "frames")] == [0, 2, 4, 6]
    config = RunFolder.open(out / "rings").configuration()
    assert (config["teacher"], config["objective"], config["batch"]) == ("rings", "DiffInstruct()", 512)
    page = (out / "gallery.html").read_text()
    assert page.count("data:image/webp") == 2
    told = re.sub(r"\s+", " ", page)
    assert "the online network starts from the proxy network" in told
    assert "the share within 4σ of 500 samples per seed. Modes and masses are of all 2,500 samples together." in told
    assert "://" not in page.replace("http://www.w3.org", "")  # nor can base64 say so by chance
    assert main([*words, "--out", str(out), "--seed", "1"]) == 2
    assert "was made with other settings; delete it, or give another --out" in capsys.readouterr().err


def test_pictures_that_are_gone_are_drawn_anew(tmp_path, small, capsys):
    words = ["gallery", "gaussians-8", "--iterations", "6", "--json", "--out", str(tmp_path / "gallery")]
    run = tmp_path / "gallery" / "gaussians-8"
    assert main(words) == 0
    first = json.loads(capsys.readouterr().out)["densities"]["gaussians-8"]
    drawn = {name: (run / name).read_bytes() for name in making.PICTURES}
    for name, content in drawn.items():
        (run / name).unlink()
        assert main(words) == 0
        assert (run / name).read_bytes() == content
        assert json.loads(capsys.readouterr().out)["densities"]["gaussians-8"] == first
    shutil.rmtree(run / "frames")
    (run / "animation.webp").unlink()
    assert main(words) == 2
    told = capsys.readouterr().err
    assert f"{run}: damaged" in told
    assert "(frames of its animation are missing)" in told
    for path in run.joinpath("checkpoints").glob("*.sha256"):
        path.unlink()
    assert main(words) == 2
    told = capsys.readouterr().err
    assert f"{run}: damaged" in told
    assert "(none of its checkpoints is intact)" in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["squares"], "DENSITY = 'squares': must be one of gaussians-25, gaussians-8, rings, checkerboard"),
        (["rings", "--iterations", "0"], "iterations = 0: must be at least 1"),
        (["rings", "--iterations", "few"], "see simdistill gallery --help"),
        (["rings", "--teacher", "rings"], "--teacher = 'rings': must be left out: the densities are the teachers"),
        (["rings", "--out", __file__], "is a file; give a folder"),
    ],
)
def test_a_bad_request_is_answered_in_one_line(words, told, capsys):
    assert main(["gallery", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


@pytest.mark.slow
def test_the_gallery_of_one_density(tmp_path):
    out = tmp_path / "gallery"
    words = ["gallery", "gaussians-8", "--iterations", "300", "--out", str(out), "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "simdistill", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found = json.loads(done.stdout)["densities"]["gaussians-8"]
    assert found == json.loads((out / "gaussians-8" / "figures.json").read_text())
    student, exact, undistilled = found["student"], found["exact"], found["undistilled"]
    assert (student["modes_found"]["mean"], exact["modes_found"]["mean"], found["components"]) == (8, 8, 8)
    assert student["energy"]["mean"] < 0.1 * undistilled["energy"]["mean"]
    assert undistilled["within_4_sigma"]["mean"] < 0.1 < 0.2 < student["within_4_sigma"]["mean"]
    assert exact["within_4_sigma"]["mean"] > 0.999
    with Image.open(out / "gaussians-8" / "animation.webp") as film:
        assert film.n_frames == making.FRAMES + 1
    assert (out / "gaussians-8" / "beside.png").exists()
    assert "gaussians-8" in (out / "gallery.html").read_text()
    # a run's folder like any other
    sample = [sys.executable, "-m", "simdistill", "sample", str(out / "gaussians-8"), "--seeds", "0-7", "--json"]
    sample += ["--out", str(tmp_path / "s.npy")]
    subprocess.run(sample, capture_output=True, check=True, env=environment)
    assert np.load(tmp_path / "s.npy").shape == (8, 2)
