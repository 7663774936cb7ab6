"""A metric of your own, as package.module:Class(…): measured, stored, shown, and imported only when it is named."""

import json
import sys
from dataclasses import dataclass, replace
from typing import ClassVar

import polars as pl
import pytest
import torch
from drawn import noise
from reports import Page

from simdistill.cli import main
from simdistill.comparison.cell import measure
from simdistill.comparison.comparing import prepare, write_results
from simdistill.comparison.grid import product
from simdistill.comparison.setting import Setting
from simdistill.config.recipes import RECIPES
from simdistill.config.settings import settings_from_mapping, to_mapping
from simdistill.evaluation.extractors import PIXELS
from simdistill.evaluation.reference import Reference
from simdistill.evaluation.statistics import Statistics
from simdistill.evaluation.table import check_metrics
from simdistill.runs.folder import RunFolder
from simdistill.teachers.loading import load_teacher
from simdistill.workflows.measuring import Measurements
from simdistill.workflows.models import recipe_of

MODULE = """
from dataclasses import dataclass
from typing import ClassVar

import torch


@dataclass(frozen=True)
class Nearest:
    k: int = 1
    name: ClassVar[str] = "nearest"
    title: ClassVar[str] = "Distance to the <nearest>"
    better: ClassVar[str] = "lower"

    def __call__(self, samples, reference):
        return torch.cdist(samples, reference).topk(self.k, largest=False).values[:, -1].mean()


@dataclass(frozen=True)
class Named:
    name: str = "named"
    title: str = "By its fields"
    better: str = "higher"

    def __call__(self, samples, reference):
        return len(samples) / len(reference)


@dataclass(frozen=True)
class Untitled:
    name: ClassVar[str] = "untitled"

    def __call__(self, samples, reference):
        return 0.0


class Plain:
    name, title, better = "plain", "Plain", "lower"

    def __call__(self, samples, reference):
        return 0.0
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of the user's, on their path."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "mine.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    yield __import__("mine")
    sys.modules.pop("mine", None)


def test_own_metrics_stand_beside_those_of_the_table(mine):
    x, y = noise(40, 3, seed=1), noise(50, 3, seed=2)
    reference = Reference("some", PIXELS, Statistics.of(y), held_out=Statistics.of(x))
    plain = reference.measure(Statistics.of(x))
    found = reference.measure(Statistics.of(x), [mine.Nearest(k=2), mine.Named()])
    expected = torch.cdist(x, y).sort(1).values[:, 1].mean()
    assert found == {**plain, "nearest": float(expected), "named": 0.8}
    assert reference.real([mine.Named()])["named"] == {"mean": 0.8, "std": 0.0, "seeds": 1, "values": [0.8]}
    assert "nearest" not in reference.quick(Statistics.of(x))
    moments = Reference("moments", PIXELS, Statistics(50, reference.statistics.moments))
    assert moments.measure(Statistics.of(x), [mine.Nearest()]).keys() == {"frechet"}


def test_they_are_written_down_as_any_setting(mine):
    recipe = settings_from_mapping(RECIPES["digits"], {"metrics": ["mine:Nearest(k=3)", "mine:Named"]})
    assert recipe.metrics == (mine.Nearest(3), mine.Named())
    written = to_mapping(recipe)["metrics"]
    assert written[0] == "mine:Nearest(k=3)"
    assert settings_from_mapping(RECIPES["digits"], {"metrics": written}) == recipe
    assert to_mapping(RECIPES["digits"])["metrics"] == []


@pytest.mark.parametrize("name", ["mine:Untitled()", "mine:Plain()", "mine:Absent()", "EDM()", "nowhere:Metric()"])
def test_what_is_no_metric_is_refused(mine, name):
    with pytest.raises(ValueError, match="metrics: "):
        settings_from_mapping(RECIPES["digits"], {"metrics": [name]})


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"name": "recall"}, "name = 'recall': must be another"),
        ({"name": "samples"}, "name = 'samples': must be another"),
        ({"name": "my metric"}, "name = 'my metric': must be letters"),
        ({"better": "larger"}, r"better = 'larger': must be one of \('lower', 'higher'\)"),
    ],
)
def test_names_that_are_taken_and_words_that_are_unknown_are_refused(mine, fields, told):
    with pytest.raises(ValueError, match=told):
        check_metrics([replace(mine.Named(), **fields)])
    with pytest.raises(ValueError, match="name = 'named'"):
        check_metrics([mine.Named(), mine.Named()])


def test_a_class_that_no_text_names_is_refused():
    @dataclass(frozen=True)
    class Here:
        name: ClassVar[str] = "here"
        title: ClassVar[str] = "Here"
        better: ClassVar[str] = "lower"

        def __call__(self, samples, reference):
            return 0.0

    with pytest.raises(ValueError, match="define it in a module"):
        check_metrics([Here()])


def test_from_the_command_line_to_the_report_and_again_only_if_named(tmp_path, mine, coarse, capsys):
    out, few = tmp_path / "run", ["--evaluation-samples", "20"]
    words = ["distill", "digits", "--iterations", "2", "--batch", "8", "--out", str(out), *few]
    assert main([*words, "--metrics", "mine:Named(name='recall')"]) == 2
    assert "name = 'recall': must be another" in capsys.readouterr().err
    assert not out.exists()

    assert main([*words, "--metrics", "mine:Nearest(k=2)", "mine:Named"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split()[-4:] == ["nearest", "named", "NFE", "samples/s"]
    run = RunFolder.open(out)
    figures = run.read_evaluation()
    found = figures["student"]["nearest"]
    assert found.keys() == {"mean", "std", "seeds", "values"}
    assert len(found["values"]) == found["seeds"] == 5
    about = {"title": "Distance to the <nearest>", "better": "lower", "code": "mine:Nearest(k=2)"}
    assert figures["own_metrics"]["nearest"] == about
    page = Page(run.report.read_text())
    assert "Custom metrics" in page.texts("caption")
    assert "computed by mine:Nearest(k=2); lower is better." in page.texts("dd")
    assert "<nearest>" not in page.html

    sys.modules.pop("mine")
    assert recipe_of(run).metrics == ()
    assert main(["evaluate", str(out), "--samples", "100", "--seeds", "1"]) == 0  # the run may be a stranger's
    shown = capsys.readouterr()
    assert "mine" not in sys.modules
    assert "skipped: mine:Nearest(k=2), mine:Named(" in shown.err
    assert "nearest" not in shown.out
    assert run.read_evaluation()["own_metrics"] == {}

    words = ["evaluate", str(out), "--samples", "20", "--seeds", "2", "--student-only", "--json"]
    assert main([*words, "--metrics", "mine:Nearest(k=2)"]) == 0
    shown = capsys.readouterr()
    assert "skipped" not in shown.err
    assert json.loads(shown.out)["student"]["nearest"]["values"] == found["values"][:2]


def test_a_comparison_has_them_in_its_tables_and_on_its_page(tmp_path, mine):
    recipe = replace(RECIPES["digits"], iterations=2, batch=8, metrics=(mine.Nearest(),))
    grid = product({"generator_lr": ["1e-4"]})
    setting = Setting(recipe, grid, tmp_path / "compare", 1, samples=20, evaluation_seeds=1, milestones=1)
    jobs = prepare(setting)
    for job in jobs:
        measure(job.who, job.run, load_teacher("digits"), Measurements(1, 1, 0), 20, 1, "cpu")
    (row,) = write_results(setting, jobs, "simdistill compare digits …")
    found = jobs[0].figures(20, 1)["nearest"]["mean"]
    assert row.metrics["nearest"]["values"] == [found]
    assert pl.read_csv(setting.out / "cells.csv")["nearest"].to_list() == pytest.approx([found])
    page = (setting.out / "compare.html").read_text()
    assert "Distance to the &lt;nearest&gt;<small>lower is better</small>" in page
    assert f"<td>{found:.3f}</td>" in page
