"""What a loop does when a training goes wrong: back to the last good state at lower rates, never worse than that."""

import errno

import pytest
import torch
from counting import Counting, Fragile, at, go, qualities, saved

from simdistill.runs.folder import RunFolder
from simdistill.training import checkpoints
from simdistill.training.checkpoints import newest_checkpoint
from simdistill.training.loop import Diverged

# --- Divergence -------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "run", {"verb": "distill"})


def test_a_non_finite_loss_rolls_back_to_lower_rates(run, capsys):
    trainer = Fragile()
    go(trainer, run, minutes=0)
    assert (trainer.iteration, trainer.rollbacks, float(trainer.sum)) == (200, 1, 200 * 201 / 2)
    (notice,) = [r for r in run.read_metrics() if "rollback" in r]
    assert (notice["iteration"], notice["rollback"], notice["rate"]) == (100, "loss is nan", 0.5)
    shown = capsys.readouterr().err
    assert "loss is nan at iteration 150" in shown
    assert "from iteration 100 with learning rates times 0.5" in shown
    assert qualities(run) == [0, 50, 100, 150, 200]
    again = Counting()
    go(again, run)  # the checkpoint at the end remembers
    assert again.rollbacks == 1


def test_a_roll_back_survives_a_crash_right_after_it(run):
    class Crashing(Fragile):
        def step(self):
            super().step()
            if self.rollbacks:
                raise MemoryError

    with pytest.raises(MemoryError):
        go(Crashing(), run, minutes=0)
    resumed = Fragile()
    go(resumed, run, minutes=0)
    assert resumed.rollbacks == 1
    assert [r["iteration"] for r in run.read_metrics() if "rollback" in r] == [100]


def test_the_first_minutes_roll_back_to_the_start(run):
    trainer = Fragile()
    go(trainer, run)
    assert [r["iteration"] for r in run.read_metrics() if "rollback" in r] == [0]
    assert float(trainer.sum) == 200 * 201 / 2


def test_three_roll_backs_and_no_more(run):
    trainer = Fragile()
    trainer.wanted = 3
    go(trainer, run, minutes=0)
    assert [r["rate"] for r in run.read_metrics() if "rollback" in r] == [0.5, 0.25, 0.125]


def test_a_fourth_divergence_gives_up_with_the_last_good_state_kept(run):
    trainer = Fragile()
    trainer.wanted = 4
    with pytest.raises(Diverged, match=r"loss is nan at iteration 150, after 3 rollbacks.*lower learning rates"):
        go(trainer, run, minutes=0)
    assert saved(run)[0] == 100


def test_non_finite_weights_never_reach_a_checkpoint(run):
    class Broken(Counting):
        def state(self):
            return super().state() | {"weight": torch.tensor([float("inf") if self.iteration else 1.0])}

    kept = []
    with pytest.raises(Diverged, match="a weight is not finite"):
        go(Broken(), run, kept=kept, minutes=0)
    assert set(saved(run)) == {0}
    assert set(kept) == {0}


def test_an_exploding_gradient_norm_rolls_back(run):
    class Exploding(Counting):
        iterations = 1000

        def metrics(self):
            return {"online_gradient_norm": 1e6 if self.iteration == 700 and not self.rollbacks else 2.0}

    go(Exploding(), run, minutes=0)
    (notice,) = [r for r in run.read_metrics() if "rollback" in r]
    assert (notice["iteration"], notice["rollback"]) == (650, "online_gradient_norm is 1e+06, after a median of 2")


# --- What disks do ----------------------------------------------------------------------------------------------------


def full(tensors, path, metadata):
    path.write_bytes(b"the first bytes of a checkpo")
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_stops_the_run_and_costs_nothing_else(run, monkeypatch):
    trainer = Counting(at(120, lambda: monkeypatch.setattr(checkpoints, "save_file", full)))
    with pytest.raises(OSError, match="No space left"):
        go(trainer, run, minutes=0)
    assert saved(run) == [100, 50, 0]
    assert not list(run.checkpoints.glob(".*"))  # no debris
    monkeypatch.undo()
    resumed = Counting()
    go(resumed, run)
    assert float(resumed.sum) == 200 * 201 / 2


def test_a_disk_that_fills_up_during_a_roll_back_costs_nothing(run, monkeypatch):
    """The state that it goes back to is written anew, with lower rates, over the checkpoint that it came from."""

    def roll_back_onto_a_full_disk(trainer):
        if trainer.iteration == 149:
            monkeypatch.setattr(checkpoints, "save_file", full)

    trainer = Fragile(roll_back_onto_a_full_disk)
    with pytest.raises(OSError, match="No space left"):
        go(trainer, run)
    assert saved(run) == [0]
    assert newest_checkpoint(run.checkpoints).name == "000000000.safetensors"
