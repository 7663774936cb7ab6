"""Comparisons as a user meets them: bad input, the plan, stops and failures."""

import html
import json
import re
import shutil
from dataclasses import replace

import pytest
from comparisons import a_comparison, measured

from simdistill.cli import main
from simdistill.comparison import cell
from simdistill.comparison.comparing import prepare, write_results
from simdistill.comparison.jobs import DIVERGED, Workers, failure_of
from simdistill.comparison.setting import Setting
from simdistill.config.recipes import RECIPES
from simdistill.config.settings import settings_from_mapping, to_mapping, to_toml
from simdistill.evaluation import partial
from simdistill.runs.folder import RunFolder
from simdistill.teachers.loading import load_teacher
from simdistill.training.loop import Diverged
from simdistill.workflows.measuring import Measurements
from simdistill.workflows.models import recipe_of


def error(capsys, *words):
    """The one line that a bad request prints."""
    assert main([str(word) for word in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["compare"], "RECIPE is missing"),
        (["compare", "digit"], "RECIPE = 'digit': must be one of 12; did you mean digits?"),
        (["compare", "digits"], "--over = 'nothing': must be given, or --grid: one of figure-2, table-4, table-5"),
        (["compare", "digits", "--grid", "figure-3"], "--grid = 'figure-3': must be one of figure-2"),
        (["compare", "digits", "--over", "generator_noise"], "must be followed by the values to compare"),
        (["compare", "digits", "--over", "noise", "Karras()"], "--over = 'noise': must be one of"),
        (
            ["compare", "digits", "--grid", "table-4", "--iterations", "7"],
            "iterations = 7: must be at least milestones",
        ),
        (["compare", "digits", "--grid", "table-4", "--samples", "9"], "samples = 9: must be at least 10"),
        (["compare", "digits", "--grid", "table-4", "--seeds", "0"], "seeds = 0: must be at least 1"),
        (["compare", "digits", "--grid", "table-4", "--workers", "0"], "workers = 0: must be at least 1"),
        (["compare", "cifar10-cond", "--grid", "table-4"], "teacher = '': must be given"),
        (["compare", "digits", "--grid", "table-4", "--teacher", "no.pkl"], "no.pkl"),
    ],
)
def test_bad_requests_are_answered_in_a_line(capsys, words, told):
    assert told in error(capsys, *words)


def test_a_setting_is_given_once(capsys):
    twice = ["--over", "generator_lr", "1e-4", "--over", "generator-lr", "2e-4"]
    assert "given once for each setting" in error(capsys, "compare", "digits", *twice)


@pytest.mark.parametrize(
    ("grid", "key", "value"),
    [
        ("table-4", "objective", "DiffInstruct()"),
        ("figure-2", "generator-noise", "Karras()"),
        ("table-5", "ema", "EMA(0)"),  # of two of its variants only
        ("family", "generator_noise", "Karras()"),
    ],
)
def test_what_a_grid_varies_is_not_given_beside_it(capsys, grid, key, value):
    told = error(capsys, "compare", "digits", "--grid", grid, "--over", key, value, "--dry-run")
    assert f"--over = '{key.replace('-', '_')}': must be a setting that --grid {grid} leaves as it is" in told


def test_a_folder_with_something_else_is_left_alone(capsys, tmp_path):
    (tmp_path / "thesis.tex").write_text("…")
    told = error(capsys, "compare", "digits", "--grid", "table-4", "--out", tmp_path)
    assert "has other content than a comparison; give another --out" in told
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_plan_lists_cells_settings_and_time(capsys):
    words = ["compare", "digits", "--over", "online_steps", "1", "2", "--seeds", "2", "--iterations", "100"]
    assert main([*words, "--milestones", "2", "--workers", "2", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [(cell["variant"], cell["training_seed"]) for cell in plan["cells"]] == [
        ("online_steps 1", 0),
        ("online_steps 2", 0),
        ("online_steps 1", 1),
        ("online_steps 2", 1),
    ]
    assert plan["cells"][1]["settings"] == {"online_steps": 2}
    assert plan["seconds"] == pytest.approx(sum(cell["seconds"] for cell in plan["cells"]) / 2, abs=0.2)
    assert plan["cells"][0]["seconds"] > 0
    assert (plan["workers"], plan["threads"], plan["iterations"]) == (2, 1, 100)


@pytest.fixture
def setting(tmp_path):
    return a_comparison(tmp_path)


def test_every_cell_has_a_run_that_can_be_repeated(setting):
    jobs = prepare(setting)
    assert [job.who for job in jobs] == ["student"] * 4 + ["teacher"]
    for one, job in zip(setting.cells, jobs, strict=False):
        assert recipe_of(job.run) == one.recipe
        assert job.run.path.parent == setting.out / "cells"
        assert job.run.path.name.endswith(one.digest)
    assert prepare(setting) == jobs


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda text: text.replace('teacher = "digits"', 'teacher = "os:getcwd"'), "was made with other settings"),
        (lambda text: text.replace('teacher = "digits"', "teacher = digits"), "damaged or not a run's folder"),
        (lambda text: "", "was made with other settings"),
        (None, "damaged or not a run's folder"),
    ],
)
def test_one_damaged_cell_costs_no_other(setting, harm, told):
    jobs = prepare(setting)
    config = jobs[1].run.config
    (config.parent / "log.txt").write_text("iteration 7")
    harmed = harm(config.read_text()) if harm else None
    config.unlink()
    if harmed is not None:
        config.write_text(harmed)
    jobs = prepare(setting)
    assert [job.missing(100, 3) for job in jobs] == [True, False, True, True, True]
    assert re.match(f"{config.parent}: {told}", jobs[1].failure)
    (row, other) = write_results(setting, jobs, "simdistill compare digits …")
    assert (row.failed, row.open, other.failed, other.open) == (0, 2, 1, 1)
    assert jobs[1].failure in html.unescape((setting.out / "compare.html").read_text())
    shutil.rmtree(config.parent)
    assert [job.missing(100, 3) for job in prepare(setting)] == [True] * 5


def test_damaged_checkpoints_of_a_cell_are_told_with_a_remedy_that_there_is(setting, capfd):
    job = prepare(setting)[0]
    job.run.checkpoints.mkdir()
    (job.run.checkpoints / "000000000.safetensors").write_bytes(b"cut short")
    options = ["--teacher", "digits", "--samples", "100", "--seeds", "3", "--milestones", "2"]
    assert cell.main(["student", str(job.run.path), *options]) == 2
    *_, told = capfd.readouterr().err.splitlines()
    assert told.startswith(f"error: {job.run.path}: damaged or not a run's folder")
    assert told.endswith("(none of its checkpoints is intact)")


def test_a_cell_that_diverges_says_so_by_its_exit_code(setting, monkeypatch, capfd):
    def diverges(*_, **__):
        raise Diverged("went wrong again after 3 roll-backs")

    monkeypatch.setattr(cell, "resume", diverges)
    options = ["--teacher", "digits", "--samples", "100", "--seeds", "3", "--milestones", "2"]
    assert cell.main(["student", str(prepare(setting)[0].run.path), *options]) == DIVERGED
    assert capfd.readouterr().err == "went wrong again after 3 roll-backs\n"


def test_new_seeds_go_on_in_the_same_folder(setting):
    """The teacher's figures depend on no training seed, nor on what its students do."""
    measured(prepare(setting)[-1:], 0.3)
    config = setting.out / "teacher" / "config.toml"
    assert "seed" not in RunFolder(config.parent).configuration()
    for recipe in (replace(setting.recipe, seed=10), replace(setting.recipe, iterations=100, generator_lr=1e-3)):
        *students, teacher = prepare(replace(setting, recipe=recipe))
        assert all(job.missing(100, 3) for job in students)
        assert not teacher.missing(100, 3)
    config.write_text(to_toml({"verb": "distill", **to_mapping(replace(setting.recipe, seed=5))}))  # as it once was
    assert not prepare(setting)[-1].missing(100, 3)


@pytest.mark.parametrize("harm", ['teacher = "faces"', "teacher = digits"])
def test_another_teachers_comparison_is_refused_before_anything_is_written(capsys, setting, harm):
    prepare(setting)
    (setting.out / "comparison.json").write_text("{}")
    config = setting.out / "teacher" / "config.toml"
    config.write_text(config.read_text().replace('teacher = "digits"', harm))
    before = {path: path.stat().st_mtime_ns for path in setting.out.rglob("*")}
    words = ["compare", "digits", "--over", "generator_lr", "1e-4", "--out", str(setting.out)]
    told = "was made with other settings; delete it" if '"' in harm else "damaged or not a run's folder; delete"
    assert f"{setting.out / 'teacher'}: {told}" in error(capsys, *words)
    assert {path: path.stat().st_mtime_ns for path in setting.out.rglob("*")} == before


def test_failures_are_told_with_their_reasons(capsys, setting, monkeypatch):
    def fails(self, jobs):
        for job in jobs[:2]:
            failure_of(job.run).write_text("diverged: ‖y‖ = 1e9")

    monkeypatch.setattr(Workers, "run", fails)
    words = ["compare", "digits", "--over", "generator_lr", "1e-4", "3e-4", "--seeds", "1", "--out", str(setting.out)]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    reasons = {f"generator_lr {lr}, seed 0": "diverged: ‖y‖ = 1e9" for lr in ("1e-4", "3e-4")}
    assert found["failures"] == reasons
    assert [row["failed"] for row in found["variants"]] == [1, 1]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert all(f"{cell}: {reason} ({setting.out}" in said for cell, reason in reasons.items())


def test_more_seeds_keep_what_is_done(setting, tmp_path):
    jobs = prepare(setting)
    measured(jobs, 2.0, 0.5, 2.1, 0.4)
    more = Setting(setting.recipe, setting.grid, setting.out, training_seeds=3, samples=100)
    found = [job.figures(100, 3) is not None for job in prepare(more)]
    assert found == [True] * 4 + [False] * 3
    assert settings_from_mapping(RECIPES["digits"], {}) == setting.recipe


def test_a_cell_that_was_stopped_in_its_evaluation_goes_on_there(setting, monkeypatch):
    """What was measured is kept until the figures are stored: the next process draws nothing of it again."""
    monkeypatch.setattr(partial, "WORTH_KEEPING", 0.0)
    drawn, plain = [], cell.teacher_sampler

    def counted(teacher):
        sampler = plain(teacher)
        return replace(sampler, draw=lambda z, rows: drawn.append(len(z)) or sampler.draw(z, rows))

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cell, "teacher_sampler", counted)
    job, teacher = prepare(setting)[-1], load_teacher("digits")
    asked = "teacher", job.run, teacher, Measurements(), 20, 2, "cpu"
    with monkeypatch.context() as patched:
        patched.setattr(cell, "show", stopped)
        with pytest.raises(KeyboardInterrupt):
            cell.measure(*asked)
    assert sum(drawn) >= 40
    drawn.clear()
    monkeypatch.setattr(cell, "show", lambda *_: None)
    cell.measure(*asked)
    assert drawn == []
    assert job.figures(20, 2) is not None
    assert not job.run.partial.exists()
