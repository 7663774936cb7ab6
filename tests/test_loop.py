"""The loop: milestones, checkpoints, interruption, divergence; on a toy trainer whose answer is known."""

import os
import signal

import pytest
import torch

from simdistill.runs import RunFolder
from simdistill.training import loop
from simdistill.training.loop import Diverged, Interrupted, train


class Counting:
    """Adds iteration + 1 at every step: after n steps the sum is n (n + 1) / 2."""

    iterations = 200

    def __init__(self, at_step=lambda iteration: None):
        self.iteration, self.sum, self.at_step = 0, torch.zeros(1), at_step

    @property
    def images(self):
        return 2 * self.iteration

    def step(self):
        self.iteration += 1
        self.sum += self.iteration
        self.at_step(self.iteration)

    def readings(self):
        return {"loss": float(self.sum)}

    def state(self):
        return {"sum": self.sum.clone(), "iteration": torch.tensor(self.iteration)}

    def restore(self, state):
        self.sum, self.iteration = state["sum"].clone(), int(state["iteration"])


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "run", {"verb": "distill"})


def go(trainer, run, milestones=4, kept=None):
    def keep():
        if kept is not None:
            kept.append(trainer.iteration)

    train(trainer, run, lambda: ({"quality": trainer.iteration}, "text"), keep, milestones)


def test_a_run_from_start_to_end(run, capsys):
    trainer, kept = Counting(), []
    go(trainer, run, kept=kept)
    assert float(trainer.sum) == 200 * 201 / 2
    records = run.records()
    assert [r["iteration"] for r in records if "quality" in r] == [0, 50, 100, 150, 200]
    assert [r["loss"] for r in records if "loss" in r] == [n * (n + 1) / 2 for n in (50, 100, 150, 200)]
    assert kept[-1] == 200
    shown = capsys.readouterr()
    assert shown.out == ""
    assert [line.split("/")[0].strip() for line in shown.err.splitlines()] == ["0", "50", "100", "150", "200"]


def test_milestones_between_the_log_lines(run):
    go(Counting(), run, milestones=16)
    due = [r["iteration"] for r in run.records() if "quality" in r]
    assert due == [round(k * 200 / 16) for k in range(17)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_iteration_with_everything_saved(run, number):
    kept = []
    with pytest.raises(Interrupted, match=rf"{number.name} at iteration 73.*--resume {run.path}"):
        go(Counting(lambda i: os.kill(os.getpid(), number) if i == 73 else None), run, kept=kept)
    assert kept == [73]
    resumed = Counting()
    go(resumed, run)
    assert float(resumed.sum) == 200 * 201 / 2
    assert [r["iteration"] for r in run.records() if "quality" in r] == [0, 50, 100, 150, 200]


def test_a_crash_costs_only_what_came_after_the_checkpoint(run, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)

    def crash(iteration):
        if iteration == 130:
            raise MemoryError

    with pytest.raises(MemoryError):
        go(Counting(crash), run)
    first = []
    resumed = Counting(first.append)
    go(resumed, run)
    assert first[0] == 101
    assert float(resumed.sum) == 200 * 201 / 2
    assert [r["iteration"] for r in run.records() if "quality" in r] == [0, 50, 100, 150, 200]


def test_a_non_finite_loss_stops_and_names_the_checkpoint(run, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)

    class Exploding(Counting):
        def readings(self):
            return {"loss": float("nan") if self.iteration >= 150 else 1.0}

    with pytest.raises(Diverged, match=rf"loss is nan at iteration 150; .*{run.checkpoint}.*learning rates"):
        go(Exploding(), run)
    rescued = Counting()
    loop.resume(rescued, run)
    assert rescued.iteration == 100


def test_non_finite_weights_never_reach_a_checkpoint(run):
    class Exploding(Counting):
        def state(self):
            return {"sum": torch.tensor([float("inf")]), "iteration": torch.tensor(1)}

    with pytest.raises(Diverged, match="weight is not finite at iteration 0; before any checkpoint"):
        go(Exploding(), run)
    assert not run.checkpoint.exists()


def test_a_crash_between_the_last_weights_and_the_checkpoint_keeps_again(run, monkeypatch):
    def crash(*_):
        raise MemoryError

    kept = []
    monkeypatch.setattr(loop, "_save", crash)
    with pytest.raises(MemoryError):
        go(Counting(), run, kept=kept)
    assert kept == [200]
    monkeypatch.undo()
    go(Counting(), run, kept=kept)
    assert kept[-1] == 200
    assert run.checkpoint.exists()


def test_a_checkpoint_of_another_network_is_refused(run):
    go(Counting(), run)

    class Other(Counting):
        def restore(self, state):
            raise KeyError("other")

    with pytest.raises(ValueError, match="does not fit this run's configuration"):
        go(Other(), run)


def test_run_folders_are_not_clobbered(tmp_path):
    run = RunFolder.create(tmp_path / "run", {"verb": "distill", "seed": 1})
    assert run.configuration() == {"verb": "distill", "seed": 1}
    (run.path / "precious").write_text("x")
    with pytest.raises(ValueError, match=r"--out = .*: exists; give another --out, --overwrite it"):
        RunFolder.create(run.path, {"verb": "distill", "seed": 2})
    assert (run.path / "precious").exists()
    assert run.configuration()["seed"] == 1
    RunFolder.create(run.path, {"verb": "distill", "seed": 2}, overwrite=True)
    assert not (run.path / "precious").exists()

    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.toml").write_text('title = "somebody else\'s"')
    (tmp_path / "home" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="is not a run's folder, so it is not overwritten"):
        RunFolder.create(tmp_path / "home", {"verb": "distill"}, overwrite=True)
    assert (tmp_path / "home" / "thesis.tex").exists()
    with pytest.raises(ValueError, match="is a file"):
        RunFolder.create(tmp_path / "home" / "thesis.tex", {"verb": "distill"}, overwrite=True)
    with pytest.raises(ValueError, match="not a run's folder"):
        RunFolder.open(tmp_path / "nowhere")


def test_a_metrics_line_that_a_crash_cut_short_is_left_out(run):
    run.record({"iteration": 1})
    run.record({"iteration": 2})
    with run.metrics.open("a") as file:
        file.write('{"iteration": 3, "lo')
    assert run.records() == [{"iteration": 1}, {"iteration": 2}]
    run.forget_after(1)
    assert run.metrics.read_text() == '{"iteration": 1}\n'
