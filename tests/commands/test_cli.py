"""The command line as a user meets it: results, one-line errors with exit code 2, and nothing overwritten."""

import json
import os
import shutil
import subprocess
import sys
import types
from dataclasses import replace
from importlib.resources import as_file, files

import numpy as np
import pytest
import torch
from PIL import Image

from simdistill.cli import main
from simdistill.config.recipes import RECIPES
from simdistill.config.settings import read_toml, to_toml
from simdistill.evaluation.features import read_classifier
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.weights import read_network
from simdistill.training.trainer import DistillationTrainer
from simdistill.workflows import sampling

SHORT = ["--iterations", "64", "--evaluation-samples", "500", "--json"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short but real run, made by the command line; its output is in `stdout.json`."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    done = subprocess.run(
        [sys.executable, "-m", "simdistill", "distill", "digits", "--out", out, *SHORT],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
    )
    (out / "stdout.json").write_text(done.stdout)
    return out


def error(capsys, *words):
    """The one line that a bad request prints."""
    assert main([str(word) for word in words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert len(lines) == 1, shown.err
    assert "Traceback" not in lines[0]
    return lines[0]


def test_distill_leaves_everything_a_run_should_hold(run):
    names = {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()}
    assert {
        "config.toml",
        "metrics.jsonl",
        "checkpoints/000000064.safetensors",
        "checkpoints/000000064.sha256",
        "generator.safetensors",
        "evaluation.json",
        "report.html",
        "images/teacher.png",
        "images/student.png",
        "images/undistilled.png",
        "images/00000000.png",
        "images/00000064.png",
    } <= names
    assert read_toml(run / "config.toml")["iterations"] == 64
    figures = json.loads((run / "stdout.json").read_text())
    assert figures == json.loads((run / "evaluation.json").read_text())
    for name, nfe in (("teacher", 35), ("student", 1), ("undistilled", 1)):
        row = figures[name]
        assert row["nfe"] == nfe
        assert row["frechet"]["seeds"] == 5
        assert row["frechet"]["mean"] == pytest.approx(np.mean(row["frechet"]["values"]))
        assert row["frechet"]["std"] == pytest.approx(np.std(row["frechet"]["values"], ddof=1))
        assert 0 <= row["recall"]["mean"] <= 1
        assert row["images_per_second"] > 0
    assert f"PyTorch {torch.__version__}, 1 thread" in figures["machine"]
    assert figures["teacher"]["frechet"]["mean"] < 0.2
    assert figures["student"]["frechet"]["mean"] < 0.5 * figures["undistilled"]["frechet"]["mean"]


def test_the_stored_generator_is_the_trainers_ema(run):
    recipe = replace(RECIPES["digits"], iterations=64)
    trainer = DistillationTrainer(load_teacher("digits"), recipe)
    for _ in range(64):
        trainer.step()
    stored, facts = read_network(run / "generator.safetensors")
    assert facts == {
        "ema": "EMA(half_life=22000.0, ramp_up=0.05)",
        "levels": [2.5],
        "shape": [1, 8, 8],
        "classes": 10,
    }
    for name, tensor in trainer.snapshot().denoiser.state_dict().items():
        torch.testing.assert_close(stored.state_dict()[name], tensor, rtol=0, atol=1e-4)


def test_the_same_seed_and_label_give_the_same_image(run):
    many = sampling.sample(run, range(100), [3])
    one = sampling.sample(run, [41], [3])
    other = sampling.sample(run, [41], [4])
    torch.testing.assert_close(one[0], many[41], rtol=0, atol=1e-5)
    assert (one - other).abs().max() > 0.1
    in_turn = sampling.sample(run, [8, 41], [0, 3])  # 41 mod 2 = 1: the second label
    torch.testing.assert_close(in_turn[1], one[0], rtol=0, atol=1e-5)


def test_sample_writes_pictures_and_numbers(run, tmp_path, capsys):
    assert (
        main(["sample", str(run), "--seeds", "0-7", "--labels", "3", "--out", str(tmp_path / "s.png"), "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out) == {"out": str(tmp_path / "s.png"), "samples": 8}
    assert Image.open(tmp_path / "s.png").size == (3 * (216 + 13) - 13,) * 2  # enlarged to 640 pixels at least
    assert main(["sample", str(run), "--seeds", "0-7", "--labels", "3", "--out", str(tmp_path / "s.npy")]) == 0
    numbers = np.load(tmp_path / "s.npy")
    np.testing.assert_array_equal(numbers, sampling.sample(run, range(8), [3]).numpy())
    assert main(["sample", str(run), "--seeds", "2,5", "--labels", "3", "--out", str(tmp_path / "each")]) == 0
    pixels = np.asarray(Image.open(tmp_path / "each" / "000005.png"))
    np.testing.assert_array_equal(pixels, ((numbers[5, 0].clip(-1, 1) + 1) * 127.5).round())


def test_a_generator_that_was_given_away_draws_what_the_run_draws(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(run / "generator.safetensors", "mine.safetensors")
    assert main(["sample", "mine.safetensors", "--seeds", "0-7"]) == 0
    assert capsys.readouterr().out == "8 samples in mine-samples-seeds-0-7.png\n"
    assert Image.open("mine-samples-seeds-0-7.png").size == (674, 674)
    assert torch.equal(sampling.sample("mine.safetensors", range(8)), sampling.sample(run, range(8)))
    assert main(["export", "mine.safetensors", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["out"] == "mine-one-step.safetensors"
    for words, message in {
        ("sample", "mine.safetensors", "--ema", "1"): "ema = 1: must be 0: mine.safetensors holds one",
        ("sample", "no.safetensors"): "no.safetensors: no such file",
        ("export", "mine.safetensors", "--out", "mine.safetensors"): "must be another file",
    }.items():
        assert main(list(words)) == 2
        assert message in capsys.readouterr().err


def test_the_shipped_clothes_are_those_that_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawn = sampling.sample("fashion-mnist", range(200))
    with as_file(files("simdistill") / "weights" / "fashion-mnist-classifier.safetensors") as path:
        classifier, _ = read_classifier(path)
    right = (classifier(drawn).argmax(1) == torch.arange(200) % 10).double().mean()
    assert right > 0.78  # of 500: 0.87; of its teacher's samples 0.83; of the real test images 0.92


def test_evaluate_prints_only_json(run, capsys):
    assert main(["evaluate", str(run), "--samples", "200", "--seeds", "2", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["student"]["samples"] == 200
    assert len(figures["student"]["frechet"]["values"]) == 2
    assert figures["real"]["samples"] == 449
    kept = json.loads((run / "evaluation.json").read_text())
    assert kept["student"]["samples"] == 500  # the better figures stay


def test_the_student_alone_has_the_figures_that_it_has_in_company(run, capsys):
    words = ["evaluate", str(run), "--samples", "200", "--seeds", "2"]
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert main([*words, "--student-only", "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert {"teacher", "undistilled", "speedup"}.isdisjoint(alone)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    assert main([*words, "--student-only"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("student")
    assert main([*words, "--json"]) == 0
    both = json.loads(capsys.readouterr().out)
    assert alone["student"]["frechet"]["values"] == pytest.approx(both["student"]["frechet"]["values"], rel=1e-6)
    assert alone["real"] == both["real"]


def test_dry_run_prints_the_settings_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "mine.toml"
    config.write_text(to_toml({"batch": 32, "seed": 5, "objective": "ScoreIdentity(alpha=1.0)"}))
    words = ["distill", "digits", "--config", "mine.toml", "--seed", "9", "--dry-run", "--json"]
    assert main(words) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["recipe"]["batch"] == 32  # the file over the recipe
    assert plan["recipe"]["seed"] == 9  # the command line over the file
    assert plan["recipe"]["objective"] == "ScoreIdentity(alpha=1.0)"
    assert plan["recipe"]["sigma_init"] == RECIPES["digits"].sigma_init
    assert plan["parameters"] == 332_032
    assert [p.name for p in tmp_path.iterdir()] == ["mine.toml"]


def test_a_runs_configuration_repeats_it(run, capsys):
    assert main(["distill", "cifar10-cond", "--config", str(run / "config.toml"), "--dry-run", "--json"]) == 0
    repeated = json.loads(capsys.readouterr().out)["recipe"]
    assert repeated == {k: v for k, v in read_toml(run / "config.toml").items() if k != "verb"}


def test_bad_requests(capsys, tmp_path, run):
    assert "RECIPE = 'nosuch': must be one of digits, " in error(capsys, "distill", "nosuch")
    assert "write `simdistill distill RECIPE …`" in error(capsys, "distill")
    assert "batch = 0: must be at least 1" in error(capsys, "distill", "digits", "--batch", "0", "--dry-run")
    assert "--bach" in error(capsys, "distill", "digits", "--bach", "3")
    assert "--batch = 'many': must be a whole number" in error(capsys, "distill", "digits", "--batch", "many")
    alpha = error(capsys, "distill", "digits", "--objective", "ScoreIdentity(alpha=7)")
    assert "--objective" in alpha
    assert "alpha = 7.0: must be in 0 … 2" in alpha
    sigma = error(capsys, "distill", "digits", "--sigma-init", "-1")
    assert "sigma_init = -1.0: must be positive" in sigma
    noise = error(capsys, "distill", "digits", "--generator-noise", "Karas()")
    assert "--generator-noise" in noise
    assert "did you mean Karras?" in noise
    assert "--teacher" in error(capsys, "distill", "cifar10-cond")
    assert "no.safetensors: no such file" in error(
        capsys, "distill", "digits", "--teacher", tmp_path / "no.safetensors", "--out", tmp_path / "x"
    )
    assert "not a run's folder" in error(capsys, "distill", "--resume", tmp_path)
    assert "device = 'gpu'" in error(capsys, "distill", "digits", "--device", "gpu", "--out", tmp_path / "x")
    assert "RUN is missing" in error(capsys, "evaluate")
    assert "not a run's folder" in error(capsys, "evaluate", tmp_path)
    assert "samples = 1: must be" in error(capsys, "evaluate", run, "--samples", "1")
    assert "labels = 12: must be in 0 … 9" in error(
        capsys, "sample", run, "--labels", "12", "--out", tmp_path / "x.png"
    )
    assert "--seeds = '3-x'" in error(capsys, "sample", run, "--seeds", "3-x")
    assert "at most a million" in error(capsys, "sample", run, "--seeds", "0-99999999999")
    assert "generator_lr = inf: must be positive and finite" in error(
        capsys, "distill", "digits", "--generator-lr", "1e400"
    )
    assert "--out = 'x.gif'" in error(capsys, "sample", run, "--out", "x.gif")
    assert "NAME = 'cats'" in error(capsys, "pretrain", "cats")
    assert "width = 0: must be at least 1" in error(capsys, "pretrain", "digits", "--width", "0")


def test_a_bad_configuration_file_is_answered_with_every_bad_key(capsys, tmp_path):
    config = tmp_path / "c.toml"
    config.write_text('bach = 3\nbatch = "many"\nonline_noise = "Lognormal(1, 2)"\n')
    line = error(capsys, "distill", "digits", "--config", config)
    assert str(config) in line
    for part in ("bach: unknown setting; did you mean batch?", "batch:", "online_noise:", "did you mean LogNormal?"):
        assert part in line
    config.write_text("not toml at all")
    assert "cannot be read as TOML" in error(capsys, "distill", "digits", "--config", config)


def test_an_existing_run_is_never_clobbered(run, capsys):
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    line = error(capsys, "distill", "digits", "--out", run, "--iterations", "10")
    assert f"--out = {run}: exists" in line
    assert "--overwrite" in line
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_damaged_runs(run, capsys, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.toml").write_bytes((run / "config.toml").read_bytes())
    assert "generator.safetensors: no such file yet; go on with" in error(capsys, "sample", broken)
    (broken / "generator.safetensors").write_bytes((run / "generator.safetensors").read_bytes()[:999])
    assert "not a valid safetensors file" in error(capsys, "sample", broken)
    assert "not a valid safetensors file" in error(capsys, "evaluate", broken)
    (broken / "config.toml").write_text('verb = "distill"\nbatch = -3\n')
    assert "batch = -3" in error(capsys, "evaluate", broken)
    (broken / "config.toml").write_text('verb = "distill"\nteacher = "os:getcwd"\n')
    assert "name it again with --teacher" in error(capsys, "evaluate", broken)


def test_help_teaches_and_is_quick(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["distill", "--help"])
    shown = capsys.readouterr().out
    for part in (
        "imagenet64-cond",
        "--objective",
        "--generator-noise",
        "Learning rate of the generator",
        "package.module:Class",
    ):
        assert part in shown
    command = [sys.executable, "-X", "importtime", "-m", "simdistill", "--help"]
    listing = subprocess.run(command, capture_output=True, text=True, check=True)
    for verb in ("distill", "plan", "sample", "evaluate", "watch", "pretrain", "features"):
        assert verb in listing.stdout
    imported = {line.rpartition("|")[2].strip() for line in listing.stderr.splitlines()}
    assert "argparse" in imported
    assert not imported & {"torch", "numpy"}  # so that it is there at once


def test_ctrl_c_while_libraries_start_is_no_traceback(monkeypatch, capsys):
    class Starting(types.ModuleType):
        def __getattr__(self, name):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "simdistill.training.loop", Starting("loop"))
    assert main(["distill", "digits"]) == 130
    assert capsys.readouterr() == ("", "")


THEIRS = """
import torch
from simdistill.teachers.teacher import Teacher
def _teacher(f): return lambda: Teacher(f, (2,))
narrow = _teacher(lambda x_t, sigma, condition=None: x_t[:, :1])
crooked = _teacher(torch.nn.Linear(3, 3))
double = _teacher(lambda x_t, sigma, condition=None: x_t.double())
nan = _teacher(lambda x_t, sigma, condition=None: x_t / 0)
blind = _teacher(torch.no_grad()(lambda x_t, sigma, condition=None: x_t / 2))
two = _teacher(lambda x_t, sigma, condition=None: (x_t, x_t))
def failing(): raise RuntimeError("the weights went away")
def number(): return Teacher(lambda x_t, sigma, condition=None: x_t, 2)
three = 3
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("narrow", "denoiser output = [2, 1]: must be of its input's shape, [2, 2]"),
        ("crooked", "fails on x_t of shape [2, 2]"),
        ("double", "denoiser output = torch.float64: must be float32"),
        ("nan", "denoiser output = 'not finite'"),
        ("blind", "denoiser output = 'detached from x_t'"),
        ("two", "denoiser output = a tuple: must be one tensor"),
        ("failing", "RuntimeError: the weights went away"),
        ("number", "calling it failed"),
        ("three", "calling it failed"),
    ],
)
def test_a_teacher_that_cannot_be_one(capsys, tmp_path, monkeypatch, name, message):
    (tmp_path / "theirs.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    monkeypatch.chdir(tmp_path)
    assert message in error(capsys, "distill", "cifar10-uncond", "--teacher", f"theirs:{name}")
    assert not (tmp_path / "runs").exists()
