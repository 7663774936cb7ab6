"""`auto` from end to end: what is read off a teacher, and a run without a recipe's name."""

import json
import math
import shlex
from dataclasses import replace

import pytest
import torch
from changed import Changed, wrong_above
from torch import nn

import simdistill
from benchmarks.teachers import scaled
from simdistill.cli import main
from simdistill.config import auto as rules
from simdistill.method.noise import Truncated
from simdistill.runs.folder import RunFolder
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.teacher import Teacher
from simdistill.workflows.auto import choose, fitting, free_memory, lines
from simdistill.workflows.models import recipe_of
from simdistill.workflows.reading import Drawn, detail_of, draw_some, kept


class Gaussian(nn.Module):
    """The exact denoiser of N(0, diag(stds²))."""

    def __init__(self, stds):
        super().__init__()
        self.square = nn.Parameter(torch.tensor(stds) ** 2)

    def forward(self, x_t, sigma, condition=None):
        return self.square / (self.square + sigma[:, None] ** 2) * x_t


class Mixing(Gaussian):
    """The same with a matrix, which starts as the identity."""

    def __init__(self, stds):
        super().__init__(stds)
        self.matrix = nn.Linear(len(stds), len(stds), bias=False)
        nn.init.eye_(self.matrix.weight)

    def forward(self, x_t, sigma, condition=None):
        return super().forward(self.matrix(x_t), sigma)


def test_spread_and_structure_are_those_of_the_distribution():
    drawn = draw_some(Teacher(Gaussian([3.0, 0.5, 0.5, 0.5]), (4,)), "cpu", most=512, seconds=60)
    assert len(drawn.samples) == 512
    assert drawn.structure == pytest.approx(3.0, rel=0.1)
    assert drawn.spread == pytest.approx(math.sqrt((9 + 3 * 0.25) / 4), rel=0.1)


def test_the_level_of_details_is_that_of_the_narrow_modes():
    teacher = load_teacher("gaussians-25")
    drawn = draw_some(teacher, "cpu", most=256, seconds=60)
    assert detail_of(teacher, drawn) == pytest.approx(0.05, rel=0.25)  # σ² 0.05² / (σ² + 0.05²) = σ²/2 at 0.05


def test_a_gaussian_has_no_details_below_its_spread():
    teacher = Teacher(Gaussian([1.0, 1.0]), (2,))
    drawn = draw_some(teacher, "cpu", most=256, seconds=60)
    assert detail_of(teacher, drawn) == pytest.approx(drawn.spread, rel=0.4)


def test_a_slow_teacher_is_asked_for_few_samples():
    drawn = draw_some(load_teacher("digits"), "cpu", seconds=0.0)
    assert drawn.samples.shape == (16, 1, 8, 8)
    assert drawn.rows.tolist() == [*range(10), *range(6)]


@pytest.mark.parametrize("level", [5.0, 20.0])
def test_a_teacher_is_asked_only_where_it_is_right(level):
    made = choose(Teacher(Changed(wrong_above(level)), (8,)))
    low, high = made.recipe.teacher_range
    assert low == 0.0
    assert 2 < high <= level  # the first level right of many
    assert made.reading.spread == pytest.approx(1.0, rel=0.15)  # as wide as 30 where it is asked everywhere
    assert made.recipe.generator_noise.high == made.recipe.online_noise.high == high
    assert made.recipe.sigma_init <= high
    (told,) = (choice.why for choice in made.choices if choice.name == "teacher_range")
    assert "wrong at high noise" in told
    assert "teacher-check.png" in told
    assert "teacher-range" in "\n".join(lines(made))
    assert made.drawn.checked.doubts == []


PREDICTIONS = {
    "noise": lambda d, x, s: (x - d) / s,
    "nothing": lambda d, x, s: x + 0 * d,
    "one sample": lambda d, x, s: 0 * d + 0.3,
}


@pytest.mark.parametrize("what", PREDICTIONS)
def test_a_teacher_that_is_wrong_nearly_everywhere_is_not_distilled_unasked(what):
    teacher = Teacher(Changed(PREDICTIONS[what]), (8,), name="mine:teacher")
    with pytest.raises(ValueError, match=r"--teacher = mine:teacher: .*in EpsilonPrediction.*give --teacher-range"):
        choose(teacher)
    if what == "noise":
        own = simdistill.Recipe(teacher_range=(0.5, 80.0))
        assert choose(teacher, base=own, given={"teacher_range"}).reading.sigma_min == 0.5


def test_a_range_that_is_given_stays():
    made = choose(
        Teacher(Changed(wrong_above(5.0)), (8,)),
        base=simdistill.Recipe(teacher_range=(0.01, 70.0)),
        given={"teacher_range"},
    )
    assert (made.reading.sigma_min, made.reading.sigma_max) == (0.01, 70.0)
    assert made.drawn.checked.high < 10


def test_a_sound_teacher_keeps_its_range():
    assert choose(load_teacher("digits")).recipe.teacher_range == (0.0, math.inf)


@pytest.mark.parametrize("k", [pytest.param(0.25, marks=pytest.mark.slow), 32.0])
def test_a_scaled_teacher_gets_scaled_levels(k, monkeypatch):
    monkeypatch.setattr("simdistill.workflows.auto.SECONDS", 600.0)  # the same samples on a busy machine
    one, other = choose(load_teacher("digits")), choose(scaled(k))
    assert other.reading.spread == pytest.approx(k * one.reading.spread, rel=1e-4)
    assert other.recipe.sigma_init == pytest.approx(k * one.recipe.sigma_init, rel=1e-3)
    assert other.recipe.generator_noise.low == pytest.approx(0.002 * k)
    mean = one.recipe.generator_noise.distribution.mean
    assert other.recipe.generator_noise.distribution.mean == pytest.approx(mean + math.log(k), abs=5e-3)
    assert (other.recipe.batch, other.recipe.generator_lr) == (one.recipe.batch, one.recipe.generator_lr)


@pytest.mark.slow
def test_a_batch_is_split_until_it_fits(monkeypatch):
    teacher = load_teacher("fashion-mnist")
    recipe = simdistill.Recipe(batch=64)
    assert fitting(recipe, teacher).value == 1
    monkeypatch.setattr("simdistill.workflows.auto.free_memory", lambda device: 150_000_000)
    split = fitting(recipe, teacher)
    assert split.value > 1
    assert 64 % split.value == 0
    assert free_memory() > 10**8


def test_a_run_without_a_recipes_name(tmp_path, capsys):
    words = ["distill", "--teacher", "digits", "--iterations", "20", "--batch", "16", "--evaluation-samples", "0"]
    assert main([*words, "--milestones", "0", "--out", str(tmp_path / "one")]) == 0
    told = capsys.readouterr().err
    assert "spread 0.5" in told
    assert "generator-noise" in told
    assert "EDM(sigma_data=0.52" in told
    run = RunFolder(tmp_path / "one")
    recipe = recipe_of(run)
    assert (recipe.teacher, recipe.batch, recipe.iterations, recipe.warmup) == ("digits", 16, 20, 20)
    assert isinstance(recipe.generator_noise, Truncated)
    assert recipe.sigma_init == pytest.approx(2.6, abs=0.1)
    assert kept(run).samples.shape[1:] == (1, 8, 8)
    assert run.picture("teacher-check").read_bytes()[:4] == b"\x89PNG"
    repeat = shlex.split(run.config.read_text().splitlines()[0].removeprefix("# repeated by: simdistill "))
    assert main([*repeat[:-1], str(tmp_path / "two"), *words[7:], "--milestones", "0"]) == 0
    assert "spread" not in capsys.readouterr().err  # all is in the file
    assert recipe_of(RunFolder(tmp_path / "two")) == recipe
    assert (tmp_path / "two" / "generator.safetensors").read_bytes() == run.network.read_bytes()


def test_its_plan(capsys):
    assert main(["plan", "--teacher", "rings", "--json", "--sigma-init", "1.5"]) == 0
    out = capsys.readouterr()
    made = json.loads(out.out)
    assert made["recipe"]["sigma_init"] == 1.5
    assert made["recipe"]["online_weighting"].startswith("EDM(sigma_data=1.2")
    assert made["outside_range"] == {"generator_noise": 0.0, "online_noise": 0.0}
    assert "sigma-init" not in out.err


def test_without_a_teacher_it_says_what_to_give(capsys):
    assert main(["distill", "auto"]) == 2
    assert "--teacher = '': must be given for auto" in capsys.readouterr().err


@pytest.mark.slow
def test_in_python(tmp_path, capsys):
    teacher = load_teacher("digits")
    recipe = replace(simdistill.auto_recipe(teacher, "cpu"), iterations=5)
    assert recipe.online_weighting.sigma_data == pytest.approx(0.524, abs=0.02)
    student = simdistill.distill(teacher, recipe, tmp_path / "run", device="cpu", evaluation_samples=0)
    assert student.sample([0]).shape == (1, 1, 8, 8)


def test_a_teacher_and_a_folder_are_enough(tmp_path, monkeypatch, capsys):
    """Without a recipe: the settings are chosen, the samples that were read are kept."""
    monkeypatch.setattr(rules, "CPU_ITERATIONS", (300, 300))
    teacher = Teacher(Mixing([2.0, 0.5]), (2,))
    student = simdistill.distill(teacher, out=tmp_path / "run", device="cpu", evaluation_samples=0)
    told = capsys.readouterr().err
    assert "auto: by 256 samples of the teacher" in told
    assert "iterations" in told
    assert "300  (about" in told
    run = RunFolder.open(tmp_path / "run")
    assert recipe_of(run).iterations == 300
    assert torch.equal(kept(run).samples, choose(teacher).drawn.samples)
    drawn = student.sample(range(500))
    assert drawn.shape == (500, 2)
    assert drawn[:, 0].std() > 2 * drawn[:, 1].std()  # as the teacher's
    with pytest.raises(ValueError, match=r"--out = .*run: exists"):
        simdistill.distill(teacher, out=tmp_path / "run", device="cpu")
    assert "auto:" not in capsys.readouterr().err  # before the teacher draws anything


def test_a_bad_sampler_is_told_with_its_picture(tmp_path, capsys):
    class Nothing(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Parameter(torch.ones(()))

        def forward(self, x_t, sigma, condition=None):
            return self.one * x_t

    recipe = simdistill.Recipe(iterations=2, batch=8)
    simdistill.distill(Teacher(Nothing(), (2,)), recipe, tmp_path / "run", device="cpu", evaluation_samples=0)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: the teacher")]
    assert len(told) == 1
    assert "removes no noise" in told[0]
    assert str(tmp_path / "run" / "images" / "teacher-check.png") in told[0]


def test_samples_without_rows_are_kept(tmp_path):
    assert kept(RunFolder(tmp_path)) is None
    assert Drawn(torch.ones(2, 3)).spread == 0
