"""The report at 400 pixels, in a browser: every table is whole."""

import json

import pytest
from reports import a_run, evaluation

from simdistill.reports.report import write_report


@pytest.mark.slow
def test_tables_and_pictures_fit_400_pixels(tmp_path, monkeypatch, rng, browser):
    monkeypatch.chdir(tmp_path)
    run = a_run(tmp_path, rng)
    run.evaluation.write_text(json.dumps(evaluation((0.6442, 0.0469))))
    write_report(run)
    page = browser.new_page(viewport={"width": 400, "height": 900})
    page.goto(run.report.resolve().as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    hidden = "[...document.querySelectorAll('.scroll')].map(each => each.scrollWidth - each.clientWidth)"
    assert page.evaluate(hidden) == [0, 0]
    widths = "[...document.querySelectorAll('.samples img')].map(each => each.getBoundingClientRect().width)"
    narrow = page.evaluate(widths)
    page.set_viewport_size({"width": 1200, "height": 900})
    for found in (narrow, page.evaluate(widths)):
        assert len(found) == 3
        assert found == pytest.approx([found[0]] * 3, abs=0.5)
    page.close()
