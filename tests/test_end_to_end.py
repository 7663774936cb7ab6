"""The main job as a newcomer runs it: minutes each, left to `make test-slow`."""

import json
import os
import subprocess
import sys
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
