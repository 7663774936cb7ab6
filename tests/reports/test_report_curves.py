"""What a report shows of the training: its curves, and its milestones in whatever features and samples."""

import re

import pytest
from reports import a_run, evaluation, figure, report

from simdistill.reports.report import contents


@pytest.fixture
def run(tmp_path, monkeypatch, rng):
    """Named by a relative path, as on the command line."""
    monkeypatch.chdir(tmp_path)
    return a_run(tmp_path, rng)


def test_curves_are_drawn_in_the_order_of_iterations(run):
    before = contents(run)
    lines = run.metrics.read_text().splitlines()
    run.metrics.write_text("".join(line + "\n" for line in [*lines[1::2], *reversed(lines[::2])]))
    after = contents(run)
    assert after["progress"] == before["progress"]
    assert [record["iteration"] for record in after["milestones"]] == [0, 50, 100, 150, 200]
    for name in ("learning_curve", "shares", "profiles", "curves"):
        assert after[name] == before[name]


def test_losses_and_speed_are_drawn(run):
    curves = contents(run)["curves"]
    assert [curve[:2] for curve in curves] == [
        ("Online loss", "20"),
        ("Generator loss", "−0.1"),
        ("Training speed, samples per second", "128"),
    ]
    heights = set(re.findall(r'<use [^>]* y="([\d.]+)" style="fill: var\(--real', curves[-1][2]))
    assert len(heights) == 1  # the same at all times


def test_long_runs_are_thinned_to_what_can_be_told_apart(run):
    for k in range(1, 2001):
        run.log_metrics({"iteration": 200 + k, "seconds": 100 + k / 2, "online_loss": 20.0 + k % 2})
    filling = contents(run)
    assert filling["progress"].iteration == 2200
    path = max(re.findall(r' d="([^"]*)"', filling["curves"][0][2]), key=len)
    assert 200 < path.count("\nL") < 450


def test_records_that_the_page_does_not_know_are_no_hindrance(run):
    run.log_metrics({"iteration": 200, "seconds": 100.0, "gradient_norm": 3.0, "surprise": {"a": [1]}})
    run.log_metrics({"iteration": 150, "seconds": 80.0, "rollback": "the <loss> is nan", "rate": 0.5})
    run.log_metrics({"iteration": 150, "seconds": 105.0, "rollback": "a weight is not finite", "rate": 0.25})
    page = report(run, evaluation((0.6442, 0.0469)))
    assert page.texts("p", "notice") == [
        "Rolled back to iteration 150: the <loss> is nan. Learning rates since then: 0.5 × the recipe's.",
        "Rolled back to iteration 150: a weight is not finite. Learning rates since then: 0.25 × the recipe's.",
    ]
    assert "1 min 45 s" in page.texts("dd")


def fid_evaluation(**changes):
    """An evaluation with Inception's features against a reference of moments alone, as EDM's files are."""
    values = evaluation((2.0412, 0.0123), teacher=(1.9712, 0.0123), seeds=3)
    for name, least in (("teacher", 1.9583), ("student", 2.0297), ("undistilled", 6.6)):
        row = {key: values[name][key] for key in ("frechet", "nfe", "images_per_second", "samples")}
        score = figure(9.8765, 0.0512, 3)
        values[name] = row | {"frechet": row["frechet"] | {"minimum": least}, "inception_score": score}
    return values | {"features": "inception-6726825d", "real": None} | changes


def milestones_in(run, features, only=("frechet", "precision", "recall")):
    """Have the milestones tell of other features, and of some metrics."""
    records = run.read_metrics()
    run.metrics.unlink()
    for record in records:
        if "quality" in record:
            quality = {name: record["quality"][name] for name in only}
            record["quality"] = quality | {"features": features, "reference": "the <training> images"}
        run.log_metrics(record)


def test_with_features_of_inception_the_distance_is_called_fid(run):
    milestones_in(run, "inception-6726825d")
    page = report(run, fid_evaluation())
    (lede,) = page.texts("p", "lede")
    assert lede.startswith(
        "One network evaluation instead of 35: 31× the samples per second. The student is behind in FID (2.041 ± 0.012 "
        "against the teacher's 1.971 ± 0.012); no clear difference in Inception Score. Not measured: precision, recall"
    )
    assert page.texts("tr")[1:4] == [
        "FIDlower is better 1.971 ± 0.012 2.041 ± 0.012 6.737 ± 0.140",
        "FID, minimumlower is better 1.958 2.030 6.600",
        "Inception Scorehigher is better 9.877 ± 0.051 9.877 ± 0.051 9.877 ± 0.051",
    ]
    assert "Fréchet" not in page.html
    assert "The reference has only moments" in page.texts("main")[0]


def test_what_rests_on_some_of_the_samples_is_said(run):
    values = evaluation((0.6442, 0.0469))
    assert "at random" not in report(run, values).html
    values["student"]["samples"] = 50_000
    note = [text for text in report(run, values).texts("p", "note") if "at random" in text]
    assert note == ["Fréchet distance: all samples. Other metrics: 10,000 of each set, chosen at random."]


def test_milestones_of_few_samples_are_followed_by_the_energy_distance(run):
    records = run.read_metrics()
    run.metrics.unlink()
    for record in records:
        if "quality" in record:
            energy = figure(0.5 / (1 + record["iteration"]), 0.0, 1)
            record["quality"] |= {"energy": energy, "features": "pixels", "samples": 50}
        run.log_metrics(record)
    page = report(run)
    assert "iteration 200 the Energy distance was 0.002" in page.texts("p", "lede")[0]
    assert page.texts("figcaption", None).count("Energy distance, lower is better") == 1
    assert "energy distance 0.00249" in page.texts("figcaption")[-1]
    assert "too few for a Fréchet distance" in page.texts("main")[0]


def test_milestones_without_precision_and_recall_have_one_chart(run):
    milestones_in(run, "inception-6726825d", only=["frechet"])
    page = report(run)
    assert page.html.count("<svg") == 5
    assert page.texts("figcaption", None).count("FID, lower is better") == 1
    assert "iteration 200 the FID was 0.092" in page.texts("p", "lede")[0]
    assert "FID 0.0916" in page.texts("figcaption")[-1]


def test_milestones_in_other_features_than_the_evaluation_are_not_drawn_beside_its_teacher(run):
    milestones_in(run, "pixels")
    page = report(run, fid_evaluation())
    assert [text for text in page.texts("figcaption") if "lower is better" in text] == [
        "Fréchet distance, lower is better"
    ]
    assert "behind in FID (2.041" in page.texts("p", "lede")[0]
    assert not [text for text in page.texts("li") if text.startswith("teacher")]
    chart = re.search(r"<svg.*?</svg>", page.html, re.DOTALL)
    assert "--teacher" not in chart[0]
    milestones_in(run, "inception-6726825d")
    page = report(run, fid_evaluation())
    assert [text for text in page.texts("li") if text.startswith("teacher")] == ["teacher 1.971"]
