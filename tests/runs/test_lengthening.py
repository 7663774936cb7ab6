"""A run is trained for longer than it was asked to."""

from dataclasses import replace

import pytest
import torch

from simdistill.cli import main
from simdistill.config.recipes import RECIPES
from simdistill.runs.folder import RunFolder
from simdistill.teachers.loading import load_teacher
from simdistill.training.checkpoints import newest_checkpoint, read_checkpoint
from simdistill.training.pretraining import Pretraining
from simdistill.training.trainer import DistillationTrainer
from simdistill.workflows import distilling, lengthening
from simdistill.workflows.distilling import Measurements
from simdistill.workflows.models import recipe_of

CONSTANT = replace(RECIPES["digits"], batch=4, iterations=20, decay="none", warmup=3)
UNMEASURED = Measurements(milestones=3, seeds=0, samples=0)


def trained(path, recipe, milestones=3):
    measured = replace(UNMEASURED, milestones=milestones)
    distilling.distill(load_teacher("digits"), recipe, path, measured=measured)
    return path


def state(path):
    return read_checkpoint(newest_checkpoint(path / "checkpoints"))[0]


@pytest.mark.parametrize("milestones", [3, pytest.param(7, marks=pytest.mark.slow)])
def test_with_constant_rates_it_ends_like_a_run_of_that_length(tmp_path, milestones):
    straight = trained(tmp_path / "straight", replace(CONSTANT, iterations=50))
    longer = trained(tmp_path / "longer", CONSTANT)
    measured = replace(UNMEASURED, milestones=milestones)
    distilling.resume(longer, measured=measured, iterations=50)
    mine, theirs = state(longer), state(straight)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())
    run = RunFolder.open(longer)
    assert run.configuration() == RunFolder.open(straight).configuration()
    assert run.config.read_text().startswith("# iterations = 20 until iteration 20\n")
    assert "# repeated by: simdistill distill" in run.config.read_text()
    distilling.resume(longer, measured=measured)  # nothing is left to do
    assert run.iteration == 50


def test_a_decay_is_stretched_and_that_is_said(tmp_path, capsys, monkeypatch):
    rate, rates = DistillationTrainer._rate, {}

    def noted(self, update):
        if update.decays:
            rates[self.iteration] = rate(self, update)
        return rate(self, update)

    monkeypatch.setattr(DistillationTrainer, "_rate", noted)
    recipe = replace(CONSTANT, decay="linear", warmup=0, iterations=10)
    longer = trained(tmp_path / "longer", recipe)
    distilling.resume(longer, measured=UNMEASURED, iterations=40)
    shares = [rates[k] / recipe.generator_lr for k in range(40)]
    assert shares == pytest.approx([1 - k / 10 for k in range(10)] + [1 - k / 40 for k in range(10, 40)])
    assert "planned for 10 iterations, is stretched to 40 from iteration 10 on" in capsys.readouterr().err
    assert "schedule of the learning rate" in (longer / "config.toml").read_text().splitlines()[0]


def test_it_cannot_become_shorter_than_it_is(tmp_path):
    path = trained(tmp_path / "run", CONSTANT)
    with pytest.raises(ValueError, match="--iterations = 19: must be at least 20, which"):
        distilling.resume(path, measured=UNMEASURED, iterations=19)
    assert recipe_of(RunFolder.open(path)).iterations == 20
    distilling.resume(path, measured=UNMEASURED, iterations=20)
    assert "# iterations" not in (path / "config.toml").read_text()


@pytest.mark.parametrize(("settings", "said"), [({}, True), ({"decay": "none", "warmup": 0.0}, False)])
def test_a_pretraining_has_a_schedule_over_all_its_iterations(tmp_path, capsys, settings, said):
    run = RunFolder.create(tmp_path / "run", {"verb": "pretrain", "iterations": 10})
    run.checkpoints.mkdir()
    (run.checkpoints / "000000010.safetensors").touch()
    settings = Pretraining("digits", iterations=10, **settings)
    assert lengthening.lengthened(run, settings, 30).iterations == 30
    assert ("stretched to 30" in capsys.readouterr().err) == said
    assert run.configuration()["iterations"] == 30


def test_the_command_line_trains_longer(tmp_path, capsys):
    out = tmp_path / "my runs" / "a"
    few = ["--evaluation-samples", "0"]
    assert main(["distill", "digits", "--iterations", "2", "--batch", "4", "--out", str(out), *few]) == 0
    assert f"simdistill evaluate '{out}'" in capsys.readouterr().out
    assert main(["distill", "--resume", str(out), "--iterations", "4", *few]) == 0
    assert RunFolder.open(out).iteration == 4
    assert RunFolder.open(out).configuration()["iterations"] == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["distill", "--resume", "RUN", "--batch", "8"], "--batch: must be left out with --resume"),
        (["distill", "--resume=RUN", "--seed=3"], "for another setting: simdistill distill RECIPE --config RUN/config"),
        (["distill", "--resume", "RUN", "--no-compile"], "--no-compile: must be left out"),
        (["distill", "--resume", "RUN", "--out", "x"], "--out: must be left out"),
        (["distill", "digits", "--resume", "RUN"], "RECIPE = 'digits': must be left out with --resume"),
        (["distill", "--resume", "RUN", "--itrations", "8"], "did you mean --iterations?"),
        (["pretrain", "--resume", "RUN", "--lr", "8"], "--lr: must be left out with --resume: a run goes on with its"),
        (["pretrain", "digits", "--resume", "RUN"], "NAME = 'digits': must be left out with --resume"),
    ],
)
def test_other_settings_are_refused_by_name(refused, words, message):
    assert message in refused(*words)
