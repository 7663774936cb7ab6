"""The table of metrics: its rows agree with the plain functions, and another row is another metric everywhere."""

import json
from dataclasses import replace

import polars as pl
import pytest
import torch
from drawn import noise
from reports import Page

from simdistill.cli import main
from simdistill.comparison.grid import cells, product
from simdistill.comparison.jobs import Job, figures_of
from simdistill.comparison.results import finals, summary, write_table
from simdistill.config.recipes import RECIPES
from simdistill.config.settings import to_mapping
from simdistill.evaluation import table
from simdistill.evaluation.extractors import PIXELS
from simdistill.evaluation.figures import in_short, over_seeds
from simdistill.evaluation.metrics import (
    energy_distance,
    frechet_distance,
    kernel_distance,
    precision_recall,
    sliced_wasserstein,
)
from simdistill.evaluation.modes import modes
from simdistill.evaluation.reference import Reference
from simdistill.evaluation.statistics import Statistics
from simdistill.evaluation.table import BESIDE, METRICS, RANKED_BY, Compared, Metric, metric_named, quick_metrics
from simdistill.method.denoisers import GaussianMixture
from simdistill.reports.report import contents
from simdistill.runs.folder import RunFolder
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.weights import write_network

MIXTURE = GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), 0.04 * torch.eye(2)[None])


@pytest.fixture
def sets():
    """Features of some samples and of a reference."""
    return 0.8 * noise(60, 2, seed=1) + 0.1, noise(80, 2, seed=2)


@pytest.fixture
def compared(sets):
    x, y = sets
    samples = Statistics(len(x), Statistics.of(x).moments, x, inception_score=4.5)
    return Compared(samples, Statistics.of(y), MIXTURE)


def test_names_and_titles_are_there_and_belong_to_one_metric_each():
    for field in ("name", "title", "meaning"):
        texts = [getattr(metric, field) for metric in METRICS]
        assert all(texts)
        assert len(set(texts)) == len(texts)
    names, headings = {metric.name for metric in METRICS}, [metric.heading for metric in METRICS if metric.heading]
    assert all(name.isidentifier() for name in names)
    assert not names & set(BESIDE)
    assert len(set(headings)) == len(headings)
    assert all(metric.section != "own" for metric in METRICS)


def test_variants_are_ranked_and_trainings_followed_by_a_distance_of_moments():
    ranked = metric_named(RANKED_BY)
    assert (ranked.better, ranked.needs, ranked.quick) == ("lower", "moments", True)
    assert {metric.better for metric in quick_metrics() if metric is not ranked} == {"higher"}  # one chart for all
    assert all(metric.heading for metric in quick_metrics())


def test_every_row_gives_what_its_function_gives(sets, compared):
    x, y = sets
    balls, spread = precision_recall(x, y, 3), modes(x, MIXTURE)
    expected = {
        "frechet": frechet_distance(Statistics.of(x).moments, Statistics.of(y).moments),
        "inception_score": 4.5,
        "precision": balls.precision,
        "recall": balls.recall,
        "density": balls.density,
        "coverage": balls.coverage,
        "kernel": kernel_distance(x, y),
        "energy": energy_distance(x, y),
        "sliced_wasserstein": sliced_wasserstein(x, y),
        "modes_found": spread.found,
        "within_4_sigma": spread.within,
        "mass_deviation": spread.deviation,
    }
    assert {metric.name: metric.value(compared) for metric in METRICS} == expected


def test_what_several_metrics_share_is_computed_once(compared, monkeypatch):
    calls = []
    for name in ("precision_recall", "modes"):
        plain = getattr(table, name)
        monkeypatch.setattr(table, name, lambda *a, plain=plain, name=name: calls.append(name) or plain(*a))
    for metric in METRICS:
        metric.value(compared)
    assert sorted(calls) == ["modes", "precision_recall"]


@pytest.mark.parametrize(
    ("lacking", "left"),
    [
        ("mixture", {"moments", "classes", "features"}),
        ("features", {"moments", "classes"}),
        ("classes", {"moments", "features", "mixture"}),
    ],
)
def test_a_metric_is_taken_only_where_there_is_what_it_needs(compared, lacking, left):
    samples, reference, mixture = compared.samples, compared.reference, compared.mixture
    if lacking == "features":
        reference = Statistics(reference.images, reference.moments)
    if lacking == "classes":
        samples = Statistics.of(samples.features)
    found = Reference("some", PIXELS, reference, mixture=None if lacking == "mixture" else mixture).measure(samples)
    assert found.keys() == {metric.name for metric in METRICS if metric.needs in left}


def test_figures_are_mean_deviation_number_and_values():
    assert over_seeds([1.0, 2.0, 6.0]) == {"mean": 3.0, "std": pytest.approx(7**0.5), "seeds": 3, "values": [1, 2, 6]}
    assert over_seeds([4.0], minimum=True) == {"mean": 4.0, "std": 0.0, "seeds": 1, "values": [4.0], "minimum": 4.0}


def test_few_samples_have_the_energy_distance_in_place_of_the_frechet_distance():
    """The covariance of no more samples than dimensions is singular."""
    x = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    reference = Reference(
        "noise", PIXELS, Statistics.of(torch.randn(40, 8, generator=torch.Generator().manual_seed(1)))
    )
    assert "energy" not in reference.quick(Statistics.of(x[:9]))
    few = reference.quick(Statistics.of(x[:8]))
    assert few["energy"] == pytest.approx(energy_distance(x[:8], reference.statistics.features))
    figures = {name: over_seeds([value]) for name, value in few.items()}
    assert in_short(figures, "pixels").startswith(f"Fréchet {few['frechet']:.3f}, precision")
    assert in_short(figures, "pixels", few=True).startswith(f"energy distance {few['energy']:.5f}, precision")


def test_the_quick_metrics_in_short():
    figures = {"frechet": over_seeds([0.5, 0.7]), "recall": over_seeds([0.25]), "energy": over_seeds([1.0])}
    assert in_short(figures, "digits-0") == "Fréchet 0.600, recall 0.250"
    assert in_short(figures, "inception-0").startswith("FID 0.600")


# --- another row ------------------------------------------------------------------------------------------------------


@pytest.fixture
def range_of_samples(monkeypatch):
    """One more row in the table."""
    row = Metric(
        name="range",
        title="Range of the samples",
        better="higher",
        needs="features",
        function=lambda c: float(c.features[0].amax() - c.features[0].amin()),
        section="main",
        meaning="how far apart they are",
        heading="range",
        format=".1f",
    )
    monkeypatch.setattr(table, "METRICS", (*METRICS, row))
    return row


def test_another_row_is_another_metric_in_files_report_and_tables(tmp_path, range_of_samples, capsys):
    teacher, run = load_teacher("digits"), RunFolder.create(tmp_path / "run", a_distillation())
    write_network(run.network, teacher.denoiser, levels=[2.5], shape=teacher.shape, classes=10)
    assert main(["evaluate", str(run.path), "--samples", "20", "--seeds", "2"]) == 0
    figures = json.loads(run.evaluation.read_text())
    found = figures["student"]["range"]
    assert found == over_seeds(found["values"])
    assert len(found["values"]) == 2
    assert figures["real"]["range"]["seeds"] == 1

    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["Fréchet", "precision", "recall", "range", "NFE", "samples/s"]
    assert f"{found['mean']:.1f}" in next(row for row in rows if row.startswith("student")).split()

    page = Page(run.report.read_text())
    assert [row for row in page.texts("tr") if row.startswith("Range of the samples")]
    assert "how far apart they are; higher is better." in page.texts("dd")

    (cell,) = cells(RECIPES["digits"], product({"generator_lr": ["1e-4"]}), [0])
    job = Job("student", "cell", RunFolder.create(tmp_path / "cell", a_distillation()), 8000)
    figures_of(job.run).write_text(json.dumps(figures["student"]))
    compared = finals([cell], [job], [], samples=20, seeds=2)
    write_table(compared, tmp_path / "cells")
    written = pl.read_csv(tmp_path / "cells.csv")
    assert written.select("range", "range_std").row(0) == pytest.approx((found["mean"], found["std"]))
    assert summary(compared)[0].metrics["range"]["values"] == [found["mean"]]


def a_distillation():
    return {"verb": "distill", **to_mapping(RECIPES["digits"])}


def test_another_quick_row_is_in_the_chart_of_the_milestones(tmp_path, range_of_samples, monkeypatch):
    run = RunFolder.create(tmp_path / "run", a_distillation())
    quick = {"frechet": over_seeds([1.0]), "recall": over_seeds([0.5]), "range": over_seeds([0.9])}
    run.log_metrics({"iteration": 0, "seconds": 0.0, "quality": quick})
    assert contents(run)["shares"].title == "Recall, higher is better"
    monkeypatch.setattr(table, "METRICS", (*METRICS, replace(range_of_samples, quick=True)))
    shares = contents(run)["shares"]
    assert shares.title == "Recall and range of the samples, higher is better"
    assert [label for label, *_ in shares.legend] == ["recall", "range of the samples"]
    assert {colour for colour in ("violet", "orange") if f"--{colour}" in shares.svg} == {"violet", "orange"}
