"""Tables and verdicts of a comparison, on figures made up for the purpose."""

import json
import math

import polars as pl
import pytest
from scipy import stats

from simdistill.comparison.grid import cells, product
from simdistill.comparison.jobs import Job, failure_of, figures_of
from simdistill.comparison.page import verdict
from simdistill.comparison.results import Row, finals, holm, milestones, summary, write_table
from simdistill.config.recipes import RECIPES
from simdistill.evaluation.figures import over_seeds
from simdistill.runs.folder import RunFolder

A, B, C = "generator_lr 1e-4", "generator_lr 2e-4", "generator_lr 3e-4"


def table(**distances):
    """A table of cells from the distances of each variant, None for a failed cell, "open" for one without an end."""
    how = {None: ("failed", None), "open": ("open", None)}
    return pl.DataFrame(
        [
            {"variant": name, "training_seed": seed, **dict(zip(("status", "frechet"), found, strict=True))}
            for name, values in distances.items()
            for seed, value in enumerate(values)
            for found in [how.get(value, ("done", value))]
        ]
    )


def test_holm_on_a_worked_example():
    """(m - j) p in order: 4 × 0.005, 3 × 0.01, 2 × 0.03, then 1 × 0.04, which may not be less than what came before."""
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    )
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_means_and_intervals_are_those_of_the_logarithms():
    (row,) = summary(table(a=[0.2, 0.3, 0.45]))
    x = [math.log(v) for v in (0.2, 0.3, 0.45)]
    expected = stats.ttest_1samp(x, 0.0).confidence_interval(0.95)
    assert row.distance == pytest.approx((0.2 * 0.3 * 0.45) ** (1 / 3))
    assert (math.log(row.low), math.log(row.high)) == pytest.approx((expected.low, expected.high))
    assert verdict(row) == "best"


def test_variants_are_ranked_and_judged_against_the_best():
    close, far, best = [1.0, 1.1, 1.3], [4.0, 4.1, 4.2], [0.95, 1.05, 1.2]
    rows = summary(table(close=close, far=far, best=best))
    assert [row.variant for row in rows] == ["best", "close", "far"]
    p = {
        name: stats.ttest_ind([math.log(v) for v in x], [math.log(v) for v in best], equal_var=False).pvalue
        for name, x in (("close", close), ("far", far))
    }
    assert rows[2].p == pytest.approx(2 * p["far"])
    assert rows[1].p == pytest.approx(p["close"])
    assert [row.differs for row in rows] == [None, False, True]
    assert rows[2].times_best == pytest.approx(rows[2].distance / rows[0].distance)
    assert verdict(rows[1]).startswith("within noise, p = ")
    assert verdict(rows[2]).startswith("worse, p = ")


def test_one_training_seed_tells_nothing_about_noise():
    rows = summary(table(a=[1.0], b=[2.0]))
    assert [row.low for row in rows] == [None, None]
    assert verdict(rows[1]) == "one training seed: no test"


def test_a_variant_with_a_failed_cell_is_not_the_best():
    rows = summary(table(lucky=[0.1, None], sound=[1.0, 1.1], dead=[None, None]))
    assert [row.variant for row in rows] == ["lucky", "sound", "dead"]
    assert [verdict(row) for row in rows] == ["1 of 2 failed", "best", "failed"]
    assert rows[1].times_best == 1.0


def test_a_variant_with_an_open_cell_is_not_the_best():
    rows = summary(table(ahead=[0.1, "open", None], sound=[1.0, 1.1, 1.2], late=[None, "open", "open"]))
    assert [verdict(row) for row in rows] == ["1 of 3 failed, 1 of 3 open", "best", "1 of 3 failed, 2 of 3 open"]
    assert [(row.failed, row.open, row.complete) for row in rows] == [(1, 1, False), (0, 0, True), (1, 2, False)]
    assert (rows[1].times_best, rows[0].times_best) == (1.0, pytest.approx(0.1 / 1.32 ** (1 / 3)))


def test_without_a_complete_variant_none_is_called_the_best():
    rows = summary(table(a=[1.0, "open"], b=[2.0, "open"], c=["open", "open"]))
    assert [verdict(row) for row in rows] == ["1 of 2 open", "1 of 2 open", "not measured"]


def test_nothing_measured_is_no_error():
    (row,) = summary(table(dead=[None]).drop("frechet"))
    assert row == Row("dead", 1, 1, 0)


@pytest.fixture
def comparison(tmp_path):
    """Three variants with a seed: one measured, one failed, one not begun."""
    found = cells(RECIPES["digits"], product({"generator_lr": ["1e-4", "2e-4", "3e-4"]}), [0])
    jobs = [Job("student", cell.variant, RunFolder(cell.folder(tmp_path)), 8000) for cell in found]
    for job in jobs:
        job.run.path.mkdir()
    metrics = {"frechet": over_seeds([0.4, 0.5, 0.6], minimum=True), "precision": over_seeds([0.7, 0.8, 0.9])}
    figures_of(jobs[0].run).write_text(json.dumps({**metrics, "samples": 100, "nfe": 1}))
    failure_of(jobs[1].run).write_text("killed by SIGKILL: it said nothing")
    for iteration, mean in ((0, 4.0), (4000, 0.6)):
        quality = {"frechet": over_seeds([mean]), "precision": over_seeds([0.9]), "recall": over_seeds([0.1])}
        jobs[0].run.log_metrics({"iteration": iteration, "seconds": iteration / 100, "quality": quality})
    jobs[0].run.log_metrics({"iteration": 8000, "seconds": 81.5, "loss": 1.0})
    return found, jobs


def test_a_row_for_each_cell_with_its_settings_and_how_it_ended(comparison):
    found = finals(*comparison, ["generator_lr"], samples=100, seeds=3)
    assert found["status"].to_list() == ["done", "failed", "open"]
    assert found["generator_lr"].to_list() == [1e-4, 2e-4, 3e-4]
    assert found["frechet"].to_list() == [0.5, None, None]
    assert found["frechet_std"][0] == pytest.approx(0.1)
    assert found.select("precision", "precision_std").row(0) == pytest.approx((0.8, 0.1))
    assert found["seconds"].to_list() == [81.5, None, None]
    assert found["images"].to_list() == [8000 * 64] * 3
    assert found["failure"][1] == "killed by SIGKILL: it said nothing"
    rows = summary(found)
    assert [row.variant for row in rows] == [A, B, C]
    assert rows[0].metrics["precision"] == over_seeds([found["precision"][0]])
    assert rows[1].metrics == {}


def test_figures_of_other_samples_do_not_count(comparison):
    assert finals(*comparison, [], samples=100, seeds=2)["status"].to_list() == ["open", "failed", "open"]


def test_a_row_for_each_milestone(comparison):
    found = milestones(*comparison)
    assert found.select("variant", "iteration", "images", "seconds", "frechet", "recall").rows() == [
        (A, 0, 0, 0.0, 4.0, 0.1),
        (A, 4000, 256_000, 40.0, 0.6, 0.1),
    ]


def test_tables_are_written_as_csv_and_parquet(comparison, tmp_path):
    found = finals(*comparison, ["generator_lr"], samples=100, seeds=3)
    write_table(found, tmp_path / "cells")
    assert pl.read_parquet(tmp_path / "cells.parquet").equals(found)
    assert pl.read_csv(tmp_path / "cells.csv").select("variant", "frechet").equals(found.select("variant", "frechet"))
