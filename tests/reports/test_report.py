"""The report: its sentence, tables, charts and pictures say what the run's files say, and nothing more is loaded."""

import base64
import io
import json
import re

import pytest
import torch
from PIL import Image
from reports import CONFIG, a_run, evaluation, figure, report, write_config

from simdistill.reports.headline import headline
from simdistill.reports.pictures import picture
from simdistill.runs.folder import RunFolder


@pytest.fixture
def run(tmp_path, monkeypatch, rng):
    """Named by a relative path, as on the command line."""
    monkeypatch.chdir(tmp_path)
    return a_run(tmp_path, rng)


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
