"""One process at a time trains in a run's folder: a second is told of the first, and a kill leaves no lock behind."""

import os
import platform
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from simdistill.config.recipes import RECIPES
from simdistill.runs import lock
from simdistill.runs.folder import RunFolder
from simdistill.runs.lock import in_use, locked, wait_until_free
from simdistill.support import locks
from simdistill.teachers.loading import load_teacher
from simdistill.training.pretraining import Pretraining
from simdistill.training.trainer import DistillationTrainer
from simdistill.workflows import distilling
from simdistill.workflows.distilling import Measurements
from simdistill.workflows.evaluating import evaluate_run
from simdistill.workflows.pretraining import pretrain, resume_pretraining

CONFIG = {"verb": "distill", "seed": 1}
SHORT = replace(RECIPES["digits"], batch=4, iterations=4)
UNMEASURED = Measurements(milestones=1, seeds=0, samples=0)


HOLD = """
import sys, time
from pathlib import Path
from simdistill.runs.lock import locked
with locked(Path(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def held(monkeypatch):
    """Another process that holds the lock of a folder: started by a call, killed at the end."""
    monkeypatch.setattr(lock, "PATIENCE", 0.1)
    found = []

    def started(folder):
        found.append(subprocess.Popen([sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, text=True))
        assert found[-1].stdout.readline() == "ready\n"
        return found[-1]

    yield started
    for process in found:
        process.kill()
        process.communicate()


def test_a_running_run_is_neither_resumed_nor_overwritten_until_it_is_killed(tmp_path, held):
    run = RunFolder.create(tmp_path / "run", CONFIG)
    run.log_metrics({"iteration": 1})
    other = held(run.path)
    before = {path: path.read_bytes() for path in run.path.iterdir()}
    owner = rf"run: in use by process {other.pid} on {platform.node()}, since \d{{4}}-"
    assert in_use(run.path).startswith(f"process {other.pid} on {platform.node()}")
    with pytest.raises(ValueError, match=owner):
        RunFolder.create(run.path, CONFIG, overwrite=True)
    with pytest.raises(ValueError, match=owner):
        distilling.distill(load_teacher("digits"), SHORT, run.path, overwrite=True, measured=UNMEASURED)
    (run.config).write_text('verb = "distill"\nteacher = "digits"\n')
    with pytest.raises(ValueError, match=owner):
        distilling.resume(run.path, measured=UNMEASURED)
    run.config.write_text('verb = "pretrain"\ndata = "digits"\nfeatures = "digits"\n')
    with pytest.raises(ValueError, match=owner):
        resume_pretraining(run.path)
    with pytest.raises(ValueError, match=owner):
        pretrain(Pretraining("digits", features="digits", iterations=1), run.path, overwrite=True)
    run.config.write_bytes(before[run.config])
    assert {path: path.read_bytes() for path in run.path.iterdir()} == before

    os.kill(other.pid, signal.SIGKILL)
    wait_until_free(run.path, 20)
    assert in_use(run.path) is None
    assert RunFolder.create(run.path, {**CONFIG, "seed": 2}, overwrite=True).configuration()["seed"] == 2
    assert not run.metrics.exists()


def test_one_process_goes_on_with_a_run_as_often_as_it_likes(tmp_path):
    for _ in range(2):
        distilling.distill(load_teacher("digits"), SHORT, tmp_path / "run", overwrite=True, measured=UNMEASURED)
        distilling.resume(tmp_path / "run", measured=UNMEASURED)
    assert in_use(tmp_path / "run") is None
    assert RunFolder.open(tmp_path / "run").iteration == 4


def test_another_thread_is_refused_and_a_failure_lets_go(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.05)
    said = []

    def second():
        with pytest.raises(ValueError, match=f"in use by process {os.getpid()}") as error, locked(tmp_path):
            pass
        said.append(str(error.value))

    def first():
        with locked(tmp_path):
            thread = threading.Thread(target=second)
            thread.start()
            thread.join()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first()
    assert len(said) == 1
    with locked(tmp_path):
        assert in_use(tmp_path) is None  # not another's: an evaluation at the end of a training may write
    assert in_use(tmp_path / "nowhere") is None


def test_of_two_that_begin_at_once_one_gets_the_folder(tmp_path, held):
    """The folder is empty but for the lock, so that only the lock tells that it is taken."""
    held(tmp_path / "run")
    with pytest.raises(ValueError, match="in use by process"):
        RunFolder.create(tmp_path / "run", CONFIG)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [lock.LOCK]


def test_without_locks_it_is_said_and_the_training_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locks, "_fcntl", lambda: None)  # Windows
    with RunFolder.begin(tmp_path / "run", CONFIG) as run:
        assert run.configuration() == CONFIG
    said = capsys.readouterr().err
    assert said.count("cannot be locked (this platform has no locks of files)") == 1
    assert in_use(run.path) is None


def test_a_training_holds_the_lock_to_its_end(tmp_path, monkeypatch):
    step, held = DistillationTrainer.step, []

    def looking(self):
        held.append((tmp_path / "run" / lock.LOCK).read_text().split(",")[0])
        step(self)

    monkeypatch.setattr(DistillationTrainer, "step", looking)
    distilling.distill(load_teacher("digits"), SHORT, tmp_path / "run", measured=UNMEASURED)
    assert held == [f"process {os.getpid()} on {platform.node()}"] * 4


def test_an_evaluation_looks_on_while_another_process_trains(tmp_path, held, capsys):
    """What it measured may be replaced before it ends, so that it prints and writes nothing."""
    path = tmp_path / "run"
    distilling.distill(load_teacher("digits"), SHORT, path, measured=UNMEASURED)
    other = held(path)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    figures = evaluate_run(path, samples=50, seeds=1)
    assert figures["student"]["samples"] == 50
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    assert f"not written into {path}: process {other.pid} on" in capsys.readouterr().err
    other.kill()
    other.wait()
    evaluate_run(path, samples=50, seeds=1)
    assert RunFolder.open(path).read_evaluation()["student"]["samples"] == 50
