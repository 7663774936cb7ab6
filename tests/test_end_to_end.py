"""The main job as a newcomer runs it: minutes each, left to `make test-slow`."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

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
    assert student["precision"] >= 0.80
    assert student["recall"] >= 0.75
    assert undistilled["frechet"]["mean"] > 5
    assert (teacher["evaluations"], student["evaluations"]) == (35, 1)
    assert (tmp_path / "digits" / "report.html").stat().st_size > 50_000


def test_the_wheel_works_elsewhere(tmp_path):
    project = Path(__file__).parent.parent
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
    short = ["distill", "digits", "--iterations", "20", "--out", "run"]
    subprocess.run([*COMMAND, *short], capture_output=True, **elsewhere)
    assert (tmp_path / "run" / "report.html").exists()


def test_listing_1_distils_an_exact_density(tmp_path):
    figures = json.loads(
        simdistill("distill", "listing-1", "--iterations", "400", "--out", tmp_path / "run", "--json").stdout
    )
    student, undistilled = figures["student"], figures["undistilled"]
    assert student["energy"]["mean"] < 0.2 * undistilled["energy"]["mean"]
    assert student["sliced_wasserstein"]["mean"] < 0.5 * undistilled["sliced_wasserstein"]["mean"]


def test_the_path_of_cifar10_on_images_in_a_zip(tmp_path):
    """Zip, classifier, reference statistics, teacher, recipe, resuming, evaluation, export: docs/fashion-mnist.md."""

    def run(*words):
        return simdistill(*words, cwd=tmp_path)

    run("convert", "digits", "set.zip")
    accuracy = json.loads(run("features", "set.zip", "--out", "classifier.safetensors", "--json").stdout)["training"]
    assert accuracy > 0.98
    judged = ("--features", "classifier.safetensors")
    run("stats", "set.zip", *judged, "--out", "set.npz")
    unet = ("--network", "unet", "--width", "16", "--depth", "1", "--attention", "4", "--centre", "--dropout", "0")
    short = ("--batch", "64", "--iterations", "400", "--ema-half-life", "2000", "--out", "teacher")
    run("pretrain", "digits", "--data", "set.zip", *judged, *unet, *short)
    teacher = ("--teacher", "teacher/generator.safetensors", "--reference", "set.npz", *judged)
    rates = ("--batch", "32", "--iterations", "200", "--generator-lr", "4e-4", "--online-lr", "4e-4")
    noise = ("--generator-noise", "LogNormal(-0.4, 1.2)", "--averages", "HalfLife(500)", "--checkpoint-minutes", "0.05")
    command = [*COMMAND, "distill", "cifar10-cond", *teacher, *rates, *noise, "--out", "run"]
    with subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.DEVNULL) as process:
        while not list((tmp_path / "run" / "checkpoints").glob("*.safetensors")):
            time.sleep(0.2)
        process.kill()
    run("distill", "--resume", "run")
    figures = json.loads(run("evaluate", "run", "--samples", "1000", "--seeds", "2", "--json").stdout)
    assert figures["student"]["frechet"]["mean"] < 0.7 * figures["undistilled"]["frechet"]["mean"]
    assert figures["reference"].startswith("1,348 images of set.zip in the features classifier-")
    assert json.loads(run("export", "run", "--to", "onnx", "--json").stdout)["difference"] < 1e-4
