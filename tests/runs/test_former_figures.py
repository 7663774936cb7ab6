"""Figures that version 0.1 stored, read in the present form."""

import json

import pytest

from simdistill.comparison.jobs import Job, figures_of
from simdistill.config.former import present_figures
from simdistill.reports.report import contents, write_report
from simdistill.runs.folder import RunFolder


def distance(*values):
    mean = sum(values) / len(values)
    return {"mean": mean, "std": 0.25, "seeds": len(values), "values": list(values)}


def sampler(evaluations):
    """As `evaluate` of 0.1 gave it: distances in full, shares as bare numbers, their deviations apart."""
    return {
        "frechet": distance(1.0, 2.0) | {"minimum": 1.0},
        "energy": distance(0.5, 0.7),
        "precision": 0.75,
        "recall": 0.5,
        "density": 1.25,
        "coverage": 0.9,
        "spread": {"precision": 0.01, "recall": 0.02, "density": 0.03, "coverage": 0.04},
        "evaluations": evaluations,
        "images_per_second": 100.0,
        "samples": 50,
    }


FLOOR = {"samples": 449, "frechet": 0.1, "precision": 0.8, "recall": 0.9, "density": 1.0, "coverage": 0.95}
EVALUATION = {
    "teacher": sampler(35),
    "student": sampler(1),
    "undistilled": sampler(1),
    "average-1": sampler(1),
    "averages": {"average-1": "HalfLife(images=100.0)"},
    "reference": "the digits",
    "features": "digits-db0be73c",
    "floor": FLOOR,
    "machine": "an abacus",
    "speedup": 12.5,
}


@pytest.fixture
def run(tmp_path):
    run = RunFolder.create(tmp_path / "old", {"verb": "distill", "teacher": "digits", "iterations": 10})
    run.evaluation.write_text(json.dumps(EVALUATION))
    quality = {"frechet": distance(3.0, 3.5, 4.0), "precision": 0.7, "recall": 0.05, "features": "digits-db0be73c"}
    lines = [
        {"iteration": 0, "seconds": 0.5, "quality": {**quality, "reference": "the digits"}},
        {"iteration": 10, "seconds": 5.0, "loss": 42.0, "generator_loss": 0.1, "y": {"0.2": 0.1}},
    ]
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_an_evaluation_of_then_has_the_schema_of_today(run):
    found = run.read_evaluation()
    student = found["student"]
    assert student["frechet"] == EVALUATION["student"]["frechet"]
    assert student["recall"] == {"mean": 0.5, "std": 0.02, "seeds": 2, "values": []}
    assert (student["nfe"], student["samples"], student["images_per_second"]) == (1, 50, 100.0)
    assert "spread" not in student
    assert found["real"]["recall"] == {"mean": 0.9, "std": 0.0, "seeds": 1, "values": [0.9]}
    assert found["real"]["samples"] == 449
    assert found["ema"] == {"average-1": "HalfLife(images=100.0)"}
    assert (found["speedup"], found["reference"], found["machine"]) == (12.5, "the digits", "an abacus")
    assert found["average-1"]["nfe"] == 1


def test_without_held_out_samples_there_are_none(run):
    run.evaluation.write_text(json.dumps({**EVALUATION, "floor": None}))
    assert run.read_evaluation()["real"] is None


def test_a_milestone_of_then_has_the_schema_of_today(run):
    milestone, line = run.read_metrics()
    assert milestone["quality"]["frechet"] == distance(3.0, 3.5, 4.0)
    assert milestone["quality"]["recall"] == {"mean": 0.05, "std": 0.0, "seeds": 3, "values": []}
    assert milestone["quality"]["features"] == "digits-db0be73c"
    assert line["online_loss"] == 42.0


def test_the_report_of_a_run_of_then_has_its_figures(run):
    write_report(run)
    text = run.report.read_text()
    assert '0.500 <span class="spread">± 0.020</span>' in text
    assert "Real (held-out)" in text
    assert contents(run)["shares"].title == "Precision and recall, higher is better"


def test_a_cell_of_then_counts_as_measured(tmp_path):
    job = Job("student", "cell", RunFolder(tmp_path), 10)
    figures_of(job.run).write_text(json.dumps({**sampler(1), "reference": "the digits", "floor": FLOOR}))
    assert job.figures(50, 2)["real"]["frechet"]["mean"] == 0.1
    assert job.figures(50, 3) is None


def test_a_density_of_then_has_the_schema_of_today():
    """A gallery's file: no seeds were told, and modes were bare numbers."""
    energy = {"mean": 0.5, "std": 0.1, "values": [0.4, 0.6]}
    student = {"energy": energy, "modes_found": 8, "mass_deviation": 0.04, "samples": 500}
    found = present_figures({"density": "rings", "iterations": 6, "seed": 0, "components": 8, "student": student})
    assert found["student"]["energy"] == {**energy, "seeds": 2}
    assert found["student"]["modes_found"] == {"mean": 8, "std": 0.0, "seeds": 1, "values": [8]}
    assert {key: value for key, value in found.items() if key != "student"} == {
        "density": "rings",
        "iterations": 6,
        "seed": 0,
        "components": 8,
    }


def test_figures_of_today_stay_as_they_are(run):
    today = run.read_evaluation()
    today["student"]["spread"] = distance(1.0, 2.0)  # a metric of the user's own that is called so
    assert present_figures(today) == today


@pytest.mark.parametrize("content", ["", "[1]", "{", "7"])
def test_damaged_figures_are_told(run, content):
    run.evaluation.write_text(content)
    with pytest.raises(ValueError, match=r"."):
        run.read_evaluation()
    run.evaluation.unlink()
    assert run.read_evaluation() == {}
