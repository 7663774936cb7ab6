"""The main job as a newcomer runs it: minutes each, left to `make test-slow`."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars
import pytest

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "simdistill"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}


def simdistill(*words, **options):
    return subprocess.run(
        [*COMMAND, *map(str, words)], capture_output=True, text=True, check=True, env=ENVIRONMENT, **options
    )


def test_the_demo_reaches_its_quality(tmp_path):
    figures = json.loads(simdistill("distill", "digits", "--out", tmp_path / "digits", "--json").stdout)
    teacher, student, undistilled = (figures[name] for name in ("teacher", "student", "undistilled"))
    assert teacher["frechet"]["mean"] <= 0.20
    assert student["frechet"]["mean"] <= min(0.30, 1.2 * teacher["frechet"]["mean"])
    assert student["precision"]["mean"] >= 0.80
    assert student["recall"]["mean"] >= 0.75
    assert undistilled["frechet"]["mean"] > 5
    assert (teacher["nfe"], student["nfe"]) == (35, 1)
    assert (tmp_path / "digits" / "report.html").stat().st_size > 50_000


def test_the_wheel_works_elsewhere(tmp_path):
    project = Path(__file__).parents[2]
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", project]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", target, wheel]
    subprocess.run(install, check=True, capture_output=True)
    elsewhere = {"cwd": tmp_path, "env": ENVIRONMENT | {"PYTHONPATH": str(target)}, "text": True, "check": True}
    where = [sys.executable, "-c", "import simdistill; print(simdistill.__file__)"]
    assert str(target) in subprocess.run(where, capture_output=True, **elsewhere).stdout
    version = subprocess.run([*COMMAND, "--version"], capture_output=True, **elsewhere).stdout
    assert version.split()[0] == "simdistill"
    plan = subprocess.run([*COMMAND, "distill", "digits", "--dry-run", "--json"], capture_output=True, **elsewhere)
    assert json.loads(plan.stdout)["parameters"] == 332_032
    short = ["distill", "digits", "--iterations", "20", "--evaluation-samples", "20", "--out", "run"]
    subprocess.run([*COMMAND, *short], capture_output=True, **elsewhere)
    assert (tmp_path / "run" / "report.html").exists()


def test_listing_1_distils_an_exact_density(tmp_path):
    figures = json.loads(
        simdistill("distill", "listing-1", "--iterations", "400", "--out", tmp_path / "run", "--json").stdout
    )
    student, undistilled = figures["student"], figures["undistilled"]
    assert student["energy"]["mean"] < 0.2 * undistilled["energy"]["mean"]
    assert student["sliced_wasserstein"]["mean"] < 0.5 * undistilled["sliced_wasserstein"]["mean"]


def killed_after_a_checkpoint(out, *words):
    """Start a training and kill it (SIGKILL) as soon as it has saved something after its start."""
    process = subprocess.Popen([*COMMAND, *map(str, words)], stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    try:
        for _ in range(1200):
            if any(int(path.stem) > 0 for path in (out / "checkpoints").glob("*.sha256")):
                return
            assert process.poll() is None
            time.sleep(0.1)
        pytest.fail("no checkpoint in two minutes")
    finally:
        process.kill()
        process.wait()


def test_from_a_zip_to_an_exported_generator(tmp_path):
    """CIFAR-10's whole path: zip, features, statistics, teacher, distillation, kill, resume, evaluation, export."""
    images, features, reference = tmp_path / "set.zip", tmp_path / "features.safetensors", tmp_path / "set.npz"
    simdistill("convert", "digits", images)
    simdistill("features", images, "--iterations", 300, "--out", features)
    simdistill("stats", images, "--features", features, "--out", reference)
    small = ["--width", 64, "--depth", 1, "--batch", 64, "--iterations", 600]
    simdistill("pretrain", "digits", "--data", images, *small, "--out", tmp_path / "teacher")
    teacher, run = tmp_path / "teacher" / "generator.safetensors", tmp_path / "run"
    judged = ["--teacher", teacher, "--reference", reference, "--features", features]
    settings = ["--generator-noise", "LogNormal(-0.4,1.2)", "--ema", "EMA(500)"]
    budget = ["--batch", 32, "--iterations", 400, "--checkpoint-minutes", 0]
    budget += ["--generator-lr", 4e-4, "--online-lr", 4e-4]
    killed_after_a_checkpoint(run, "distill", "cifar10-cond", *judged, *settings, *budget, "--out", run)
    assert not (run / "evaluation.json").exists()
    simdistill("distill", "--resume", run, "--evaluation-samples", 0)
    figures = json.loads(simdistill("evaluate", run, "--samples", 1000, "--seeds", 2, "--json").stdout)
    student, undistilled = figures["student"], figures["undistilled"]
    assert student["frechet"]["mean"] < 0.5 * undistilled["frechet"]["mean"]
    assert student["recall"]["mean"] > undistilled["recall"]["mean"]
    assert "set.zip" in figures["reference"]
    exported = json.loads(simdistill("export", run, "--to", "onnx", "--json").stdout)
    assert exported["difference"] <= 1e-4


def test_a_comparison_outlives_a_killed_worker_and_a_signal(tmp_path):
    """One worker is killed, then the whole is stopped, and asked for again: every cell is there, none done twice."""
    out = tmp_path / "compare"
    words = ["compare", "digits", "--over", "generator_noise", "Karras()", "LogNormal(-0.9,1.2)", "--seeds", 2]
    words += ["--iterations", 300, "--milestones", 3, "--samples", 200, "--evaluation-seeds", 2, "--workers", 2]
    words += ["--checkpoint-minutes", 0, "--out", out, "--json"]
    command = [*COMMAND, *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT, text=True)
    cells = out / "cells"

    def some_cell():
        found = [path.parents[1] for path in cells.glob("*/checkpoints/*.sha256") if int(path.stem) > 0]
        return found[0] if found else None

    while not some_cell():
        assert process.poll() is None
        time.sleep(0.1)
    victim = some_cell()
    (pid,) = subprocess.run(["pgrep", "-f", f"student {victim}"], capture_output=True, text=True).stdout.split()
    os.kill(int(pid), signal.SIGKILL)
    while not list(cells.glob("*/figures.json")):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert (out / "compare.html").exists()
    before = {path: path.stat().st_mtime_ns for path in cells.glob("*/figures.json")}
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT).stdout)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [row["failed"] for row in found["variants"]] == [0, 0]
    table = polars.read_parquet(out / "cells.parquet")
    assert table["status"].to_list() == ["done"] * 4
    # the killed cell ends as one that was left alone
    alone = tmp_path / "alone"
    config = victim / "config.toml"
    simdistill("distill", "digits", "--config", config, "--out", alone, "--evaluation-samples", 0)
    assert (alone / "generator.safetensors").read_bytes() == (victim / "generator.safetensors").read_bytes()
    assert (
        polars.read_csv(out / "milestones.csv").group_by("variant", "training_seed").len()["len"].to_list() == [4] * 4
    )
