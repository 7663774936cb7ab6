"""The report: its sentence, tables, charts and pictures say what the run's files say, and nothing more is loaded."""

import base64
import io
import json
import re

import pytest
import torch
from PIL import Image
from reports import CONFIG, Page, a_run, evaluation, figure, write_config

from simdistill.reports.headline import headline
from simdistill.reports.pictures import picture
from simdistill.reports.report import contents, write_report
from simdistill.runs.folder import RunFolder


@pytest.fixture
def run(tmp_path, monkeypatch, rng):
    """Named by a relative path, as on the command line."""
    monkeypatch.chdir(tmp_path)
    return a_run(tmp_path, rng)


def report(run, values=None):
    if values is not None:
        run.evaluation.write_text(json.dumps(values))
    write_report(run)
    return Page(run.report.read_text())


def test_the_headline_is_that_of_the_figures(run):
    values = evaluation((0.6442, 0.0469))
    assert report(run, values).texts("p", "lede") == [" ".join(headline(values).split())]


def test_the_tables_hold_the_figures(run):
    page = report(run, evaluation((0.6442, 0.0469)))
    assert page.texts("tr") == [
        "Metric Teacher Student Undistilled start Real (held-out)",
        "Fréchet distancelower is better 0.096 ± 0.012 0.644 ± 0.047 6.737 ± 0.140 0.137",
        "Precisionhigher is better 0.877 ± 0.012 0.877 ± 0.012 0.877 ± 0.012 0.500",
        "Recallhigher is better 0.048 ± 0.012 0.322 ± 0.012 3.368 ± 0.012 0.500",
        "NFEnetwork evaluations per sample 35 1 1 –",
        "Samples per secondhigher is better 28 880 1,096 –",
        "Samples measuredper evaluation seed × seeds 2,000 × 5 2,000 × 5 2,000 × 5 449",
        "Metric Teacher Student Undistilled start Real (held-out)",
        "Densityhigher is better 1.010 ± 0.012 1.010 ± 0.012 1.010 ± 0.012 0.500",
        "Coveragehigher is better 0.900 ± 0.012 0.900 ± 0.012 0.900 ± 0.012 0.500",
        "Kernel distancelower is better −0.0010 ± 0.0012 −0.0064 ± 0.0047 −0.0674 ± 0.0140 0.5000",
        "Energy distancelower is better 0.096 ± 0.012 0.644 ± 0.047 6.737 ± 0.140 0.500",
        "Sliced Wassersteinlower is better 0.096 ± 0.012 0.644 ± 0.047 6.737 ± 0.140 0.500",
    ]
    text = page.texts("main")[0]
    assert "2,000 samples per evaluation seed, 5 seeds" in text
    assert "median over the evaluation seeds, on an abacus <of wood>." in text
    assert "449 of them, and 2,000" in text


def test_sets_of_unequal_sizes_are_said(run):
    assert "roughly comparable" not in report(run, evaluation((0.6442, 0.0469))).html
    values = evaluation((0.6442, 0.0469))
    values["teacher"]["samples"] = 300
    page = report(run, values)
    assert "Samples measuredper evaluation seed × seeds 300 × 5 2,000 × 5 2,000 × 5 449" in page.texts("tr")
    assert "The teacher has 300 × 5, so its figures are only roughly comparable." in page.texts("main")[0]


def test_fewer_samples_than_a_full_evaluation_has_are_said(run):
    assert "full evaluation" not in report(run, evaluation((0.6442, 0.0469))).html
    values = evaluation((0.6442, 0.0469), seeds=3)
    for name in ("teacher", "student", "undistilled"):
        values[name]["samples"] = 500
    page = report(run, values)
    assert "500 samples per evaluation seed, 3 seeds" in page.texts("main")[0]
    (note,) = [text for text in page.texts("p", "note") if "full evaluation" in text]
    assert "fewer samples than a full evaluation's 2,000 × 5" in note
    assert "simdistill evaluate runs/mine" in note


def test_milestones_of_other_numbers_of_samples_have_no_line_of_the_teacher(run):
    run.log_metrics({"iteration": 200, "seconds": 101.0, "quality": {"frechet": figure(0.09), "samples": 500}})
    page = report(run, evaluation((0.6442, 0.0469)))
    assert not [text for text in page.texts("li") if text.startswith("teacher")]
    assert (
        "not of the same features, reference and number of samples. Each rests on 500 samples" in page.texts("main")[0]
    )
    run.log_metrics({"iteration": 200, "seconds": 102.0, "quality": {"frechet": figure(0.09), "samples": 2000}})
    assert [text for text in report(run).texts("li") if text.startswith("teacher")] == ["teacher 0.096"]


def test_every_average_has_a_column(run):
    values = evaluation((0.6442, 0.0469))
    values["ema"] = {"ema-1": "PowerEMA(std=0.1)"}
    values["ema-1"] = json.loads(json.dumps(values["student"]))
    values["ema-1"]["frechet"]["mean"] = 0.3217
    page = report(run, values)
    heading, distance = page.texts("tr")[:2]
    assert heading == "Metric Teacher Student Student, PowerEMA(std=0.1) Undistilled start Real (held-out)"
    assert "0.644 ± 0.047 0.322 ± 0.047 6.737 ± 0.140" in distance
    assert page.texts("p", "note hint") == ["The table scrolls sideways."] * 2


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("2000 samples of the teacher", "nothing here tells how close the teacher is to its data"),
        ("50,000 images of cifar10.zip", "nothing shows what a perfect sampler would reach"),
    ],
)
def test_without_held_out_samples_it_is_said_what_is_not_measured(run, reference, said):
    values = evaluation((0.6442, 0.0469)) | {"real": None, "reference": reference}
    page = report(run, values)
    assert "Real" not in page.texts("main")[0]
    assert said in page.texts("main")[0]
    assert said not in report(run, evaluation((0.6442, 0.0469))).html


def test_pictures_compared_by_their_pixels_are_no_judgement_of_their_looks(run):
    said = "pixel by pixel, which says little"
    values = evaluation((0.6442, 0.0469))
    assert said in report(run, values | {"features": "pixels"}).html
    assert said not in report(run, values | {"features": "digits-1"}).html


def test_the_page_loads_nothing_and_holds_every_picture(run):
    page = report(run, evaluation((0.6442, 0.0469)))
    assert not re.search(r"https?:|url\((?!#)|@import|<script|<link|<iframe", page.html)
    embedded = [
        base64.b64decode(uri.removeprefix("data:image/png;base64,"), validate=True) for uri in page.values("src")
    ]
    film = [0, 30, 60, 90, 110, 140, 170, 200]
    names = ["teacher", "student", "undistilled", *(f"{k:08d}" for k in film)]
    assert embedded == [run.picture(name).read_bytes() for name in names]
    assert [text for text in page.texts("b") if "Iteration" in text] == [f"Iteration {k}" for k in film]
    assert len(page.values("alt")) == len(embedded)
    assert all(page.values("alt"))
    width, height = Image.open(io.BytesIO(embedded[0])).size
    assert (page.values("width")[0], page.values("height")[0]) == (str(width), str(height))
    assert all(target.startswith("#") for target in page.values("href") + page.values("xlink:href"))


def test_scatter_plots_are_not_pixelated(run):
    assert page_classes(report(run, evaluation((0.6442, 0.0469)))) == {"grid"}
    scatter = picture(torch.randn(10, 2))
    for path in run.picture("x").parent.iterdir():
        path.write_bytes(scatter)
    assert page_classes(report(run)) == {None}


def page_classes(page):
    return {attrs.get("class") for tag, attrs, _ in page.elements if tag == "img"}


def test_the_charts_take_their_colours_from_the_page(run):
    page = report(run, evaluation((0.6442, 0.0469)))
    charts = re.findall(r"<svg.*?</svg>", page.html, re.DOTALL)
    assert len(charts) == 6
    names = [set(re.findall(r"var\(--([\w-]+)\)", chart)) for chart in charts]
    common = {"muted", "line"}
    assert names[0] == common | {"student", "teacher", "real"}
    assert names[1] == common | {"violet", "orange"}
    assert names[2:5] == [common | {"violet"}, common | {"student"}, common | {"real"}]  # losses, speed
    assert names[5] == common | {"level-0", "level-1", "level-2"}
    assert not re.search(r"#[0-9a-f]{6}", "".join(charts))
    for name in set.union(*names):  # defined for light and for dark
        assert page.html.count(f"--{name}: #") == 2
    assert page.texts("li")[6:9] == ["0.00388", "2.92", "11"]
    marks = [len(re.findall(f"<use [^>]*{colour}", charts[0])) for colour in ("student", "teacher")]
    assert marks == [5, 0]  # a mark for each milestone
    ids = page.values("id")
    assert len(ids) == len(set(ids)) > 0


def test_the_configuration_and_the_command_repeat_the_run(run, tmp_path):
    page = report(run, evaluation((0.6442, 0.0469)))
    names = page.texts("dt")
    settings = dict(zip(names, page.texts("dd"), strict=True))
    shown = {name: settings[name] for name in names[names.index("verb") :]}
    assert shown == {
        "verb": "distill",
        "teacher": "digits",
        "objective": "DiffInstruct()",
        "betas": "[0.0, 0.999]",
        "generator_lr": "0.0004",
        "batch": "64",
        "iterations": "200",
        "seed": "0",
    }
    assert page.texts("pre") == ["simdistill distill digits --config runs/mine/config.toml --out NEW_FOLDER"]
    assert settings["Training time"] == "1 min 40 s"
    assert settings["Iterations"] == "200"


def test_no_path_of_the_machine_is_told(run, tmp_path):
    write_config(run, teacher=f"{tmp_path}/secret/mine.safetensors")
    page = report(RunFolder(run.path.resolve()))
    assert page.texts("pre") == ["simdistill distill auto --config mine/config.toml --out NEW_FOLDER"]
    assert "…/mine.safetensors" in page.texts("dd")
    assert str(tmp_path) not in page.html
    assert "secret" not in page.html


def test_a_teacher_that_was_an_object_must_be_named(run):
    write_config(run, teacher="teacher")
    assert report(run).texts("pre")[0].endswith("--out NEW_FOLDER --teacher package.module:function")


def test_what_others_named_is_escaped(run):
    write_config(run, teacher="a.b:<b>'x'</b>&amp;")
    values = evaluation((0.6442, 0.0469))
    page = report(run, values)
    assert "a.b:<b>" not in page.html
    assert "a.b:<b>'x'</b>&amp;" in page.texts("dd")
    assert "the <training> images" in page.texts("main")[0]

    weird = RunFolder(run.path.parent / "a <i>b & c")
    run.path.rename(weird.path)
    page = report(weird)
    assert page.texts("h1") == ["a <i>b & c"]
    command = "simdistill distill auto --config 'runs/a <i>b & c/config.toml' --out NEW_FOLDER"
    assert page.texts("pre") == [command]


def test_an_interrupted_run_shows_what_there_is(run):
    run.metrics.write_text("".join(line + "\n" for line in run.metrics.read_text().splitlines()[:3]) + '{"iterat')
    run.picture("teacher").unlink()
    page = report(run)
    lede = "Not evaluated yet; 50 of 200 iterations are recorded. At iteration 50 the Fréchet distance was 1.839."
    assert page.texts("p", "lede") == [lede]
    assert len(page.texts("p", "missing")) == 2
    assert all("simdistill evaluate runs/mine" in text for text in page.texts("p", "missing"))
    assert page.texts("table") == []
    assert page.html.count("<svg") == 6
    assert len(page.values("src")) == 8
    assert "50 of 200" in page.texts("dd")


def test_a_run_that_was_stopped_at_once_has_a_page(tmp_path):
    run = RunFolder.create(tmp_path / "new", CONFIG)
    page = report(run)
    assert page.texts("p", "lede") == ["Not evaluated yet; 0 of 200 iterations are recorded."]
    assert len(page.texts("p", "missing")) == 5
    assert page.values("src") == []
    assert "<svg" not in page.html


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
