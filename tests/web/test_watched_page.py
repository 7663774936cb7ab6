"""The page of a run as it is watched: how far it is, what it is at, and nothing from elsewhere."""

import base64
import re

import pytest
import torch
from reports import CONFIG, Page, a_run, write_config

from simdistill.reports.pictures import picture
from simdistill.reports.report import Live, contents, page
from simdistill.runs.folder import RunFolder


@pytest.fixture
def run(tmp_path, monkeypatch, rng):
    monkeypatch.chdir(tmp_path)
    return a_run(tmp_path, rng)


def live(run, state="running", silence=3.0):
    return Page(page(contents(run), Live(state, silence)))


def test_a_page_that_is_watched_says_how_far_the_run_is(run):
    write_config(run, iterations=800)
    run.picture("student").unlink()
    page = live(run)
    assert page.texts("title") == ["25 % – mine – simdistill"]
    assert page.texts("p", "state running") == ["Running"]
    assert page.texts("p", "lede") == ["Fréchet distance 0.092 at iteration 200, from 5.000 at the start."]
    facts = dict(zip(page.texts("dt")[:6], page.texts("dd")[:6], strict=True))
    assert facts == {
        "Iteration": "200 of 800",
        "Training speed": "128 samples/s",
        "Training time": "1 min 40 s",
        "Remaining training time": "5 min",  # 600 iterations at 2 a second
        "Online loss": "20",
        "Generator loss": "−0.1",
    }
    (bar,) = [attrs for tag, attrs, _ in page.elements if tag == "progress"]
    assert (bar["max"], bar["value"]) == ("800", "200")
    first, newest = (base64.b64decode(uri.partition(",")[2]) for uri in page.values("src")[:2])
    assert (first, newest) == (run.picture("00000000").read_bytes(), run.picture("00000200").read_bytes())
    assert "simdistill evaluate" not in page.html
    assert page.html.count("<svg") == 6
    assert [attrs for tag, attrs, _ in page.elements if tag == "details"] == [{"open": None}]


@pytest.mark.parametrize(
    ("state", "silence", "words"),
    [
        ("evaluating", 9.0, "Trained, evaluating"),
        ("finished", 9e9, "Finished"),
        ("silent", 59 + 125 * 60, "No output for 2 h 5 min"),
    ],
)
def test_a_page_that_is_watched_says_what_the_run_is_at(run, state, silence, words):
    page = live(run, state, silence)
    assert page.texts("p", f"state {state}") == [words]
    assert ("simdistill distill --resume runs/mine" in page.html) == (state == "silent")
    assert "Remaining training time" not in page.html


def test_a_page_that_is_watched_loads_nothing_but_itself(run):
    page = live(run)
    assert not re.search(r"https?:|url\((?!#)|@import|<iframe", page.html)
    assert [target for target in page.values("href") if not target.startswith("#")] == ["data:,"]
    assert re.findall(r"fetch\((.*?),", page.html) == ['"/"']
    assert "http-equiv" in page.html.partition("<noscript>")[2].partition("</noscript>")[0]


def test_the_training_of_a_teacher_can_be_watched(tmp_path, rng):
    run = RunFolder.create(tmp_path / "teacher", {"verb": "pretrain", "batch": 8, "iterations": 100})
    run.picture("00000000").parent.mkdir()
    run.picture("00000000").write_bytes(picture(torch.randn(20, 1, 2, 2, generator=rng), edge=4))
    run.log_metrics({"iteration": 50, "seconds": 4.0, "loss": 20.0})
    page = live(run)
    assert page.texts("p", "kicker") == ["Teacher training"]
    assert page.texts("dt")[:5] == [
        "Iteration",
        "Training speed",
        "Training time",
        "Remaining training time",
        "Loss",
    ]
    assert page.texts("dd")[:4] == ["50 of 100", "100 samples/s", "4 s", "4 s"]
    assert len(page.values("src")) == 2  # the first is the newest, and the film
    assert page.texts("figcaption")[0] == "Iteration 0 being evaluated"
    assert "tudent" not in page.texts("main")[0]
    assert "--resume" in live(run, "silent", 600.0).html


def test_a_run_that_has_just_begun_can_be_watched(tmp_path):
    run = RunFolder.create(tmp_path / "new", CONFIG)
    page = live(run)
    assert page.texts("p", "lede") == ["Nothing has been measured yet."]
    assert page.texts("dd")[:2] == ["0 of 200", "0 s"]
    assert "<svg" not in page.html
