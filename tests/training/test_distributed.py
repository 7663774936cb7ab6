"""Several processes do what one does: gradients, metrics, whole runs, interruptions; replicated and sharded."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from gradients_of_a_step import KINDS, gradients
from safetensors.torch import load_file

from simdistill.cli import main
from simdistill.data.images import open_images
from simdistill.runs.folder import RunFolder
from simdistill.support.tensors import read_tensors
from simdistill.teachers.weights import write_network
from simdistill.training.pretrainer import PretrainingTrainer
from simdistill.training.pretraining import Pretraining
from simdistill.training.processes import ALONE, Processes

HERE = Path(__file__).parents[1] / "helpers"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "PYTHONPATH": str(HERE.parents[1])}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SHORT = ["distill", "digits", "--batch", "16", "--iterations", "30", "--evaluation-samples", "50"]


def start(*words):
    return subprocess.Popen(
        [str(word) for word in words], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process, code=0):
    out, err = process.communicate(timeout=400)
    assert process.returncode == code, err
    return out, err


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """--teacher, and one that is soon evaluated."""
    path = tmp_path_factory.mktemp("small") / "teacher.safetensors"
    settings = Pretraining("digits", width=32, depth=1, batch=64, iterations=60)
    trainer = PretrainingTrainer(open_images("digits"), settings)
    for _ in range(trainer.iterations):
        trainer.step()
    write_network(path, trainer.average)
    return ["--teacher", path]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two Gloo processes compute in one step of every kind."""
    path = tmp_path_factory.mktemp("two") / "gradients.safetensors"
    finish(start(*TORCHRUN, HERE / "gradients_of_a_step.py", path))
    return load_file(path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_compute_the_gradients_of_one(two, kind):
    for name, alone in gradients(replace(KINDS[kind], compile=False)).items():
        for way in ("replicated", "sharded"):
            together = two[f"{kind} {way} {name}"]
            assert together.shape == alone.shape
            # several: the second online update follows the first, whose signs rounding may turn
            tolerance = 1e-6 if kind != "several" or name == "average" else 1e-4
            assert (together - alone).norm() <= tolerance * alone.norm(), (way, name)


def test_rows_are_dealt_out_once_and_evenly():
    for count in range(1, 9):
        for batch in (count, 13, 64, 257):
            parts = [Processes(rank, count).rows(batch) for rank in range(count)]
            assert [i for part in parts for i in range(batch)[part]] == list(range(batch))
            sizes = [part.stop - part.start for part in parts]
            assert max(sizes) - min(sizes) <= 1
    assert ALONE.is_main
    assert not Processes(1, 2).is_main


@pytest.mark.slow
@pytest.mark.parametrize("shard", [False, True], ids=["replicated", "sharded"])
def test_a_run_started_by_torchrun(tmp_path, small, shard):
    """A whole run; one process writes and prints; the weights are those of a run in one process, but for rounding."""
    words, flags = [*SHORT, *small, "--out"], ["--shard"] if shard else []
    finish(start(sys.executable, "-m", "simdistill", *words, tmp_path / "one"))
    out, err = finish(start(*TORCHRUN, "-m", "simdistill", *words, tmp_path / "two", *flags, "--json"))
    figures = json.loads(out)
    assert figures["student"]["frechet"]["seeds"] == 5
    assert err.count("30/30 iterations") == 1
    one, two = (read_tensors(tmp_path / run / "generator.safetensors")[0] for run in ("one", "two"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert (two[name] - tensor).norm() <= 2e-3 * tensor.norm(), name  # 30 steps of Adam's signs
    for name, tolerance in (("online_loss", 1e-3), ("y_norm", 2e-2)):
        alone, together = (mean_of(name, tmp_path / run) for run in ("one", "two"))
        assert alone == pytest.approx(together, rel=tolerance)


@pytest.mark.slow
def test_groups_end_before_python_does(tmp_path, small):
    """The threads of one that is left abort a process that is done, if they still have a tensor to drop."""
    words = [*SHORT, *small, "--iterations", "2", "--evaluation-samples", "0", "--out", tmp_path / "run"]
    finish(start(*TORCHRUN, HERE / "groups_after_a_run.py", *words))


def mean_of(name, run):
    """Over all iterations: records, which are written by the clock too, have the means since the one before."""
    records = [r for r in RunFolder.open(run).read_metrics() if name in r]
    ends = [0, *(r["iteration"] for r in records)]
    return sum((end - start) * r[name] for start, end, r in zip(ends, ends[1:], records, strict=False)) / ends[-1]


ALONE_COMMAND = [sys.executable, "-m", "simdistill"]
TOGETHER_COMMAND = [*TORCHRUN, "-m", "simdistill"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after", "flags"),
    [(TOGETHER_COMMAND, ALONE_COMMAND, ["--shard"]), (ALONE_COMMAND, TOGETHER_COMMAND, [])],
    ids=["two sharded, then one", "one, then two"],
)
def test_a_stopped_run_goes_on_with_another_number_of_processes(tmp_path, small, before, after, flags):
    """SIGTERM, as a scheduler sends it: all is saved, and whoever comes next takes over."""
    run = RunFolder(tmp_path / "run")
    words = [*SHORT, *small, "--iterations", "200", "--checkpoint-minutes", "0", "--out"]
    running = start(*before, *words, run.path, *flags)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not any(r.get("online_loss") for r in run.read_metrics()):
        time.sleep(0.1)
    running.send_signal(signal.SIGTERM)
    _, err = running.communicate(timeout=120)
    assert running.returncode == (75 if before is ALONE_COMMAND else 1)
    assert "stopped by SIGTERM" in err
    assert run.stopped.exists()
    saved = max(int(path.stem) for path in run.checkpoints.glob("*.safetensors"))
    assert 0 < saved < 200
    finish(start(*after, "distill", "--resume", run.path, "--evaluation-samples", "0"))
    assert not run.stopped.exists()
    losses = [r["iteration"] for r in run.read_metrics() if "online_loss" in r]
    assert losses == sorted(losses)
    assert losses[-1] == 200
    finish(start(*ALONE_COMMAND, *words, tmp_path / "alone"))
    stopped, alone = (read_tensors(tmp_path / r / "generator.safetensors")[0] for r in ("run", "alone"))
    for name, tensor in alone.items():
        assert (stopped[name] - tensor).norm() <= 0.05 * tensor.norm(), name


@pytest.mark.slow
def test_an_error_of_the_leading_process_reaches_all(tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("x")
    _, err = finish(start(*TORCHRUN, "-m", "simdistill", *SHORT, "--out", tmp_path / "taken"), code=1)
    assert err.count("exists, and is not a run's folder") == 2


def test_pretraining_is_for_one_process(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["pretrain", "digits", "--out", str(tmp_path / "x")]) == 2
    assert "pretraining runs in one process" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
