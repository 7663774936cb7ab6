"""The page of a comparison: who won, what failed, what is open."""

import html
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from comparisons import a_comparison, measured

from simdistill.comparison.comparing import prepare, write_results
from simdistill.comparison.jobs import failure_of, figures_of


class Page(HTMLParser):
    """Tags, visible text, and addresses that a page would load."""

    def __init__(self, content):
        super().__init__()
        self.open, self.text, self.loaded = [], "", []
        self.feed(content)

    def handle_starttag(self, tag, attributes):
        self.loaded += [
            value for name, value in attributes if name in ("src", "href") and not value.startswith("data:")
        ]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


@pytest.fixture
def setting(tmp_path):
    return a_comparison(tmp_path)


def test_the_page_tells_who_won_and_what_failed(setting):
    jobs = prepare(setting)
    measured(jobs, 2.0, 0.5, 2.1)
    failure_of(jobs[3].run).write_text("killed by SIGKILL: it <said> nothing")
    measured(jobs[4:], 0.3)
    rows = write_results(setting, jobs, "simdistill compare digits …")
    assert [row.variant for row in rows] == ["generator_noise LogNormal(-0.9,1.2)", "generator_noise Karras()"]
    page = Page((setting.out / "compare.html").read_text())
    assert page.open == []
    assert page.loaded == []
    text = re.sub(r"\s+", " ", page.text)
    assert "Lowest distance: generator_noise Karras(), 2.05 (" in text  # the other has a failed cell
    assert "1 of 2 failed" in text
    assert "seed 1: killed by SIGKILL: it <said> nothing" in text
    assert "Reference: the <training> images." in text
    assert "Teacher (NFE 35): Fréchet distance 0.300, precision 0.800, recall 0.700." in text
    assert text.count("Samples of") == 0
    assert "simdistill compare digits …" in text


def test_the_page_of_a_comparison_that_was_stopped_says_what_is_open(setting):
    jobs = prepare(setting)
    measured(jobs, 2.0, 0.5, 2.1)
    write_results(setting, jobs, "simdistill compare digits …")
    page = (setting.out / "compare.html").read_text()
    text = re.sub(r"\s+", " ", Page(page).text)
    assert "1 of 4 cells are still open. Lowest distance so far: generator_noise Karras(), 2.05 (" in text
    assert re.findall(r"<td>(\d of \d open|best)</td>", page) == ["1 of 2 open", "best"]
    figures_of(jobs[2].run).unlink()
    write_results(setting, jobs, "simdistill compare digits …")
    page = (setting.out / "compare.html").read_text()
    assert "2 of 4 cells are still open. No variant is complete, so none is called the best." in page
    assert '<tr class="best">' not in page


@pytest.mark.parametrize(
    ("samples", "told", "lines"),
    [
        (2000, "; dashed: the teacher.", 3),
        (500, "the teacher is not shown, as its metrics are of 500 samples and the milestones' of 2,000.", 0),
    ],
)
def test_the_teachers_line_is_drawn_where_it_has_as_many_samples_as_the_milestones(setting, samples, told, lines):
    setting = replace(setting, samples=samples)
    jobs = prepare(setting)
    measured(jobs, 2.0, 0.5, 2.1, 0.6, 0.3, samples=samples)
    write_results(setting, jobs, "simdistill compare digits …")
    page = (setting.out / "compare.html").read_text()
    assert told in html.unescape(re.sub(r"\s+", " ", page))
    assert page.count("stroke-dasharray") == lines


def test_a_page_of_nothing_says_so(setting):
    write_results(setting, prepare(setting), "simdistill compare digits …")
    page = (setting.out / "compare.html").read_text()
    assert "4 of 4 cells are still open. No cell has been measured." in page
    assert "<h2>Samples</h2>" not in page
    assert (setting.out / "cells.parquet").exists()
