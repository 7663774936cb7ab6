"""Processes that do jobs, stood in for by a script that does as its folder says."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from simdistill.comparison.jobs import Job, Workers, figures_of
from simdistill.config.recipes import RECIPES
from simdistill.config.settings import to_mapping
from simdistill.runs.folder import RunFolder
from simdistill.runs.lock import in_use
from simdistill.training.loop import Interrupted

# $4 is the folder; each line of its file "plan" is what a try does. Every start is noted in "tries".
WORKER = """#!/bin/bash
cd "$4"; echo "$@ threads=$OMP_NUM_THREADS" >> tries
eval "$(sed -n "$(wc -l < tries)p" plan)"
"""
DONE = """echo '{"samples": 10, "frechet": {"mean": 1, "seeds": 2}}' > figures.json"""


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    worker = tmp_path / "worker"
    worker.write_text(WORKER)
    worker.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(worker))

    def planned(*plans):
        found = []
        for k, plan in enumerate(plans):
            path = tmp_path / f"cell-{k}"
            path.mkdir()
            (path / "plan").write_text("\n".join(plan) + "\n")
            found.append(Job("student", f"cell {k}", RunFolder(path), 8))
        return found

    return planned


def workers(count=2, threads=1, devices=("cpu",)):
    return Workers("digits", count, threads, devices, samples=10, seeds=2, milestones=4)


def tries(job):
    path = job.run.path / "tries"
    return path.read_text().splitlines() if path.exists() else []


def test_a_job_gets_its_options_and_its_threads(jobs):
    (job,) = jobs([DONE])
    workers(threads=3).run([job])
    options = "--teacher digits --samples 10 --seeds 2 --milestones 4 --device cpu"
    options += f" --parent {os.getpid()}"
    assert tries(job) == [f"-m simdistill.comparison.cell student {job.run.path} {options} threads=3"]
    assert job.figures(10, 2)["frechet"]["mean"] == 1
    assert job.failure is None


def test_a_worker_that_dies_is_tried_once_more_and_the_others_go_on(jobs, capsys):
    dies_once, dies_twice, sound = found = jobs(["kill -9 $$", DONE], ["echo 'iteration 7/8'; kill -9 $$"] * 3, [DONE])
    workers().run(found)
    assert [len(tries(job)) for job in found] == [2, 2, 1]
    assert dies_once.failure is None
    assert dies_twice.failure == "killed by SIGKILL"
    assert sound.figures(10, 2)
    said = capsys.readouterr().err
    assert "cell 1: killed by SIGKILL" in said
    assert "cell 2: Fréchet 1.000" in said
    assert said.count("/3 ") == 3


def test_a_job_that_complains_says_so_in_the_end(jobs):
    (job,) = jobs(["echo first; echo 'error: no space' >&2; exit 2"] * 2)
    workers().run([job])
    assert job.failure == "ended with exit code 2: error: no space"
    (job.run.path / "plan").write_text(f"true\ntrue\n{DONE}\n")
    workers().run([job])  # asked for again it is tried again
    assert job.failure is None


def test_a_training_that_diverges_is_not_tried_again(jobs):
    (job,) = jobs(["echo 'after 3 roll-backs: ‖y‖ = 1e9'; exit 3", DONE])
    assert job.missing(10, 2)
    workers().run([job])
    assert len(tries(job)) == 1
    assert job.failure == "diverged: after 3 roll-backs: ‖y‖ = 1e9"
    assert not job.missing(10, 2)  # nor by the same command later


def test_an_exception_is_no_divergence(jobs):
    """Python ends with 1 after any that is not caught."""
    (job,) = jobs(["echo 'RuntimeError: out of memory'; exit 1"] * 2)
    workers().run([job])
    assert len(tries(job)) == 2
    assert job.failure == "ended with exit code 1: RuntimeError: out of memory"
    assert job.missing(10, 2)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"samples": 10}', '{"samples": 10, "frechet": 1}', "\xff"])
def test_damaged_figures_are_none(jobs, content):
    (job,) = jobs([DONE])
    figures_of(job.run).write_text(content, encoding="latin-1")
    assert job.missing(10, 2)
    workers().run([job])
    assert not job.missing(10, 2)


def test_so_many_at_a_time_on_the_devices_in_turn(jobs):
    busy = "sleep 0.3; ls -d ../running-* 2>/dev/null | wc -l >> ../most; "
    plan = [f"touch ../running-$$; {busy} rm ../running-$$; {DONE}"]
    found = jobs(*[plan] * 6)
    workers(2, devices=["cuda:0", "cuda:1"]).run(found)
    most = [int(n) for n in (found[0].run.path.parent / "most").read_text().split()]
    assert max(most) == 2
    used = {line.split("--device ")[1].split()[0] for job in found for line in tries(job)}
    assert used == {"cuda:0", "cuda:1"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_running_jobs_and_starts_no_others(jobs, number):
    gentle = "trap 'touch saved; exit 75' TERM; for k in $(seq 200); do sleep 0.1; done"
    found = jobs(*[[gentle, DONE]] * 4)

    def press():
        while not all(tries(job) for job in found[:2]):
            time.sleep(0.05)
        time.sleep(0.3)
        os.kill(os.getpid(), number)

    threading.Thread(target=press).start()
    with pytest.raises(Interrupted, match=f"{number.name}; everything is saved, and the same command resumes"):
        workers().run(found)
    assert [(job.run.path / "saved").exists() for job in found] == [True, True, False, False]
    assert [len(tries(job)) for job in found] == [1, 1, 0, 0]
    assert [job.failure for job in found] == [None] * 4


def test_nothing_to_do_is_done_at_once(capsys):
    workers().run([])
    assert capsys.readouterr().err == ""


COMPARE = """
import sys
from pathlib import Path
from simdistill.comparison.jobs import Job, Workers
from simdistill.runs.folder import RunFolder
job = Job("student", "cell", RunFolder(Path(sys.argv[1])), 9)
Workers("digits", 1, 1, ["cpu"], samples=10, seeds=2, milestones=1).run([job])
"""


@pytest.fixture
def endless(tmp_path):
    """The folder of a cell that trains for days."""
    recipe = replace(RECIPES["digits"], iterations=10**6, batch=4)
    return RunFolder.create(tmp_path / "endless", {"verb": "distill", **to_mapping(recipe)})


@pytest.mark.slow
def test_a_worker_whose_comparison_was_killed_while_it_started_ends(endless):
    gone = subprocess.Popen(["true"])
    gone.wait()
    options = ["--teacher", "digits", "--samples", "10", "--seeds", "2", "--milestones", "1", "--parent", str(gone.pid)]
    command = [sys.executable, "-m", "simdistill.comparison.cell", "student", endless.path, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in (-signal.SIGTERM, 75), done.stderr  # 75: it had begun to train, and saved
    assert in_use(endless.path) is None


@pytest.mark.slow
def test_a_worker_ends_with_its_comparison(endless):
    comparison = subprocess.Popen([sys.executable, "-c", COMPARE, endless.path], stderr=subprocess.DEVNULL)
    wait_for(lambda: endless.metrics.exists() and endless.metrics.stat().st_size > 0)
    assert len(worker_of(endless)) == 1
    comparison.kill()
    comparison.wait()
    wait_for(lambda: not worker_of(endless))
    assert in_use(endless.path) is None


def worker_of(run):
    """The processes that work on a run's folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (place / "cmdline").read_bytes().split(b"\0")
            if b"simdistill.comparison.cell" in words and str(run.path).encode() in words:
                found.append(int(place.name))
    return found


def wait_for(holds):
    end = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)
