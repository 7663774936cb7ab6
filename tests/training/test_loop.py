"""The loop: milestones, checkpoints, interruption, roll-back; on a toy trainer whose answer is known."""

import os
import signal
import subprocess
import threading
import time
from contextlib import contextmanager

import pytest
from counting import Counting, Fragile, at, counted, fail, go, qualities, saved

from simdistill.runs.folder import RunFolder
from simdistill.support.bar import Bar
from simdistill.support.stopping import Interrupted
from simdistill.training import checkpoints, loop
from simdistill.training.checkpoints import newest_checkpoint, read_checkpoint
from simdistill.training.loop import Loop


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "run", {"verb": "distill"})


def test_a_run_from_start_to_end(run, capsys):
    trainer, kept = Counting(), []
    go(trainer, run, kept=kept)
    assert float(trainer.sum) == 200 * 201 / 2
    assert qualities(run) == [0, 50, 100, 150, 200]
    lines = [r for r in run.read_metrics() if "loss" in r]
    assert [r["loss"] for r in lines] == [n * (n + 1) / 2 for n in (50, 100, 150, 200)]
    assert all(r["images_per_second"] > 0 for r in lines)
    assert kept == [0, 200]
    assert saved(run) == [200, 0]
    shown = capsys.readouterr()
    assert shown.out == ""
    assert [line.split("/")[0].strip() for line in shown.err.splitlines()] == ["0", "50", "100", "150", "200"]


def test_milestones_between_the_log_lines(run):
    go(Counting(), run, milestones=16)
    assert qualities(run) == [round(k * 200 / 16) for k in range(17)]


def test_measuring_does_not_hold_up_the_training(run):
    """The network of iteration 50 is measured while later iterations run, and recorded as that of iteration 50."""
    reached = threading.Event()
    trainer = Counting(at(90, reached.set))

    def wait(iteration):
        assert iteration != 50 or reached.wait(20), "iteration 90 waits for the measuring of iteration 50"

    def at_milestone():
        iteration = trainer.iteration
        return counted(iteration, lambda training: wait(iteration))

    Loop(trainer, run, at_milestone, lambda: None, milestones=4).train()
    assert sorted(qualities(run)) == [0, 50, 100, 150, 200]


def test_progress_tells_when_its_metrics_were_measured(run, monkeypatch):
    """While no later milestone is measured, those of iteration 0 are not shown as if they were of now."""
    notes = []

    class Noted(Bar):
        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            if name == "note" and value:
                notes.append(value)

    @contextmanager
    def noted(what, total, shown, done):
        yield Noted(what, total, done)

    monkeypatch.setattr(loop, "progress_bar", noted)
    go(Counting(lambda trainer: time.sleep(0.2 * (trainer.iteration in (40, 140)))), run, milestones=2)
    assert [note.partition("samples/s, ")[2] for note in notes if "samples/s" in note][:2] == ["text (at 0)"] * 2
    assert [*dict.fromkeys(note[note.index("text") :] for note in notes)][:2] == ["text (at 0)", "text (at 100)"]
    later = notes.index(next(note for note in notes if "(at 100)" in note))
    assert not any("(at 0)" in note for note in notes[later:])  # the newest, as soon as it is there


def test_a_checkpoint_does_not_wait_for_a_measurement_and_a_resumed_run_takes_it_up(run):
    """A request to stop while iteration 50 is measured: its network is kept, and measured by the resumed run."""

    def blocked(training):
        while True:  # as long as the training wants it
            training.between()
            time.sleep(0.01)

    trainer = Counting(at(73, lambda: os.kill(os.getpid(), signal.SIGTERM)))

    def at_milestone():
        return counted(trainer.iteration, blocked if trainer.iteration == 50 else lambda training: None)

    with pytest.raises(Interrupted, match="SIGTERM at iteration 73"):
        Loop(trainer, run, at_milestone, lambda: None, milestones=4).train()
    assert saved(run) == [73, 0]
    assert qualities(run) == [0]
    assert [path.read_text() for path in run.unmeasured.iterdir()] == ["50"]
    go(Counting(), run)
    counts = {record["quality"]["count"]: record["iteration"] for record in run.read_metrics() if "quality" in record}
    assert counts == {n: n for n in (0, 50, 100, 150, 200)}
    assert not run.unmeasured.exists()


def test_a_request_to_stop_is_heard_while_the_training_waits_for_a_measurement(run):
    """Patiently, at iteration 100, for that of iteration 50: both are left to the resumed run."""

    def blocked(training):
        while True:
            training.between()
            time.sleep(0.01)

    def request():
        threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGTERM]).start()

    trainer = Counting(at(99, request))

    def at_milestone():
        return counted(trainer.iteration, blocked if trainer.iteration == 50 else lambda training: None)

    with pytest.raises(Interrupted, match=r"SIGTERM at iteration 10[01]"):
        Loop(trainer, run, at_milestone, lambda: None, milestones=4).train()
    assert sorted(path.read_text() for path in run.unmeasured.iterdir()) == ["100", "50"]
    go(Counting(), run)
    assert sorted(qualities(run)) == [0, 50, 100, 150, 200]


def test_a_milestone_is_left_out_while_nobody_is_patient(run):
    """Of iterations 0, 50, 100 and so on, the second is measured until 110: iteration 100 is left out."""
    reached, trainer = threading.Event(), Counting(at(110, lambda: (reached.set(), time.sleep(0.3))))

    def at_milestone():
        iteration = trainer.iteration
        return counted(iteration, lambda training: reached.wait(20) if iteration == 50 else None)

    Loop(trainer, run, at_milestone, lambda: None, milestones=4, patient=False).train()
    assert 100 not in qualities(run)
    assert {0, 50} < set(qualities(run))


def test_measurements_learn_how_long_the_training_takes(run):
    """Iterations 3 to 10 take 20 ms each: 200 of them take four seconds."""
    told, trainer = [], Counting(lambda trainer: time.sleep(0.02) if trainer.iteration <= 10 else None)
    Loop(
        trainer,
        run,
        lambda: counted(trainer.iteration, lambda training: told.append(training.seconds())),
        lambda: None,
        milestones=1,
    ).train()
    assert told == [told[0]] * 2
    assert 4 <= told[0] < 40  # more on a busy machine


@pytest.mark.parametrize("patient", [True, False])
def test_a_training_shorter_than_its_pace_takes_to_be_known(run, patient):
    """Measurements that wait for it, and a training that waits for them, do not wait for each other."""
    trainer, told = Counting(), []
    trainer.iterations = 5

    def at_milestone():
        return counted(trainer.iteration, lambda training: told.append(training.seconds()))

    Loop(trainer, run, at_milestone, lambda: None, milestones=2, patient=patient).train()
    assert {0, 5} <= set(qualities(run))
    assert len(told) >= 2


def test_a_failing_measurement_is_not_hidden(run):
    with pytest.raises(ZeroDivisionError):
        Loop(Counting(), run, lambda: counted(0, lambda training: 1 // 0), lambda: None).train()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_stops_after_the_iteration_with_everything_saved(run, number):
    kept = []
    with pytest.raises(Interrupted, match=rf"{number.name} at iteration 73.*--resume {run.path}") as stopped:
        go(Counting(at(73, lambda: os.kill(os.getpid(), number))), run, kept=kept)
    assert stopped.value.by == number.name
    assert kept == [0, 73]
    resumed = Counting()
    go(resumed, run)
    assert float(resumed.sum) == 200 * 201 / 2
    assert qualities(run) == [0, 50, 100, 150, 200]


def test_a_signal_during_the_last_save_is_heard(run):
    """What follows a training may take long; it can be left for another time."""

    def keep():
        if trainer.iteration == 200:
            os.kill(os.getpid(), signal.SIGTERM)

    trainer = Counting()
    with pytest.raises(Interrupted, match="SIGTERM at iteration 200"):
        Loop(trainer, run, lambda: counted(0), keep).train()
    assert saved(run)[0] == 200
    go(Counting(), run)  # nothing is left to do


def test_a_crash_costs_only_what_came_after_the_checkpoint(run):
    with pytest.raises(MemoryError):
        go(Counting(at(130, fail)), run, minutes=0)
    first = []
    resumed = Counting(lambda trainer: first.append(trainer.iteration))
    go(resumed, run)
    assert first[0] == 101
    assert float(resumed.sum) == 200 * 201 / 2
    assert qualities(run) == [0, 50, 100, 150, 200]


def test_three_checkpoints_are_kept(run):
    go(Counting(), run, minutes=0)
    assert saved(run) == [200, 150, 100]
    assert len(list(run.checkpoints.iterdir())) == 6


def test_signals_other_than_ctrl_c_may_come_twice(run):
    def twice():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="SIGTERM at iteration 73"):
        go(Counting(at(73, twice)), run)
    assert saved(run)[0] == 73
    assert run.stopped.exists()
    go(Counting(), run)
    assert not run.stopped.exists()


@pytest.mark.parametrize("damage", ["truncated", "a bit", "no digest", "empty digest"])
def test_the_newest_sound_checkpoint_is_used(run, damage, capsys):
    go(Counting(), run, minutes=0)
    newest = run.checkpoints / "000000200.safetensors"
    content = bytearray(newest.read_bytes())
    if damage == "truncated":
        newest.write_bytes(content[:-1])
    elif damage == "a bit":
        content[-1] ^= 1
        newest.write_bytes(content)
    elif damage == "no digest":
        newest.with_suffix(".sha256").unlink()
    else:
        newest.with_suffix(".sha256").write_text("")
    state, facts = read_checkpoint(newest_checkpoint(run.checkpoints))
    assert (state["position"].tolist(), float(state["sum"])) == ([150, 0], 150 * 151 / 2)
    assert facts["seconds"] > 0
    assert "000000200.safetensors: damaged" in capsys.readouterr().err
    first = []
    resumed = Counting(lambda trainer: first.append(trainer.iteration))
    go(resumed, run, minutes=0)
    assert first[0] == 151
    assert saved(run) == [200, 150, 100]
    assert newest_checkpoint(run.checkpoints) == newest


def test_nothing_sound_is_an_error_not_a_fresh_start(run):
    go(Counting(), run)
    for path in checkpoints.checkpoints(run.checkpoints):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="all checkpoints are damaged"):
        go(Counting(), run)


def test_sha256sum_agrees(run):
    go(Counting(), run)
    for digest in run.checkpoints.glob("*.sha256"):
        done = subprocess.run(["sha256sum", "-c", digest.name], cwd=run.checkpoints, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


def test_a_crash_between_the_last_weights_and_the_checkpoint_keeps_again(run, monkeypatch):
    kept = []
    trainer = Counting(at(199, lambda: monkeypatch.setattr(loop, "write_checkpoint", lambda *_: fail())))
    with pytest.raises(MemoryError):
        go(trainer, run, kept=kept)
    assert kept == [0, 200]
    monkeypatch.undo()
    go(Counting(), run, kept=kept)
    assert kept == [0, 200, 200]
    assert saved(run)[0] == 200


def test_a_checkpoint_of_another_network_is_refused(run):
    go(Counting(), run)

    class Other(Counting):
        def restore(self, state):
            raise ValueError("other")

    with pytest.raises(ValueError, match="do not match this run's configuration"):
        go(Other(), run)


# --- Logs -------------------------------------------------------------------------------------------------------------


def test_services_get_every_record(run):
    class Service:
        def __init__(self):
            self.records = []

        def log_metrics(self, values):
            self.records.append(values)

        def picture(self, name, iteration, path):
            pytest.fail("the loop knows of no pictures")

        def close(self):
            pytest.fail("who opened it closes it")

    service = Service()
    go(Fragile(), run, minutes=0, logs=[service])
    kept = run.read_metrics()
    assert [r for r in service.records if r in kept] == kept
    assert [r["iteration"] for r in service.records if "loss" in r] == [50, 100, 150, 200]
