"""The quiz: whose picture is where, and a page that needs nothing but itself and counts what was found."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from studies import drafts, noise

from simdistill.cli import main
from simdistill.study.quiz import quiz_page, riddles


def pixels(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_the_student_is_where_the_answer_says():
    found = riddles(drafts(20), seed=3)
    assert sorted(riddle.prompt for riddle in found) == sorted(f"prompt {k}" for k in range(20))
    assert [riddle.prompt for riddle in found] != [f"prompt {k}" for k in range(20)]
    assert 4 <= sum(riddle.student for riddle in found) <= 16
    for riddle in found:
        k = int(riddle.prompt.split()[1])
        assert np.array_equal(pixels(riddle.pictures[riddle.student]), np.asarray(noise(k)))
        assert np.array_equal(pixels(riddle.pictures[1 - riddle.student]), np.asarray(noise(100 + k)))
    assert riddles(drafts(20), seed=3) == found


def test_the_page_needs_nothing_but_itself():
    page = quiz_page(drafts(3), "mine")
    assert re.findall(r'(?:src|href)="(?!data:image/png;base64,)', page) == []
    assert "<script" not in page
    answers = [f"{k}{'AB'[riddle.student]}" for k, riddle in enumerate(riddles(drafts(3)), 1)]
    assert f"The one-step images: {', '.join(answers)}." in page
    kinds = re.findall(r'name="pair-(\d)" value="(\w+)"', page)
    for k, riddle in enumerate(riddles(drafts(3)), 1):
        order = [kind for number, kind in kinds if number == str(k)]
        assert order.index("student") == riddle.student


def test_what_cannot_be_asked(tmp_path, refused):
    assert "RUN = 'nowhere': must be a run's folder" in refused("quiz", "nowhere")
    there = tmp_path / "quiz.html"
    there.write_text("mine")
    assert "must be a new file; give another, or --overwrite it" in refused("quiz", "fashion-mnist", "--out", there)
    assert there.read_text() == "mine"
    assert "--out = 'quiz.pdf': must be a .html" in refused("quiz", "fashion-mnist", "--out", "quiz.pdf")


@pytest.mark.slow
def test_the_shipped_student_in_a_browser(browser, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["quiz", "fashion-mnist"]) == 0
    assert capsys.readouterr().out == "10 pairs in quiz.html\n"
    page = browser.new_page()
    page.goto((tmp_path / "quiz.html").as_uri())
    page.locator("input[value=student]").nth(0).check()
    page.locator("input[value=student]").nth(1).check()
    page.locator("input[value=teacher]").nth(2).check()

    def marks():
        labels = page.locator(".tick:has(input:checked)").all()
        return [label.evaluate("one => getComputedStyle(one, '::after').content") for label in labels]

    assert marks() == ["none"] * 3
    page.get_by_text("The answers", exact=True).click()
    assert marks() == ['" – right"', '" – right"', '" – wrong"']
    assert page.get_by_role("img").count() == 20
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    read = "".join(node.get("name", {}).get("value", "") for node in tree if node["role"]["value"] == "InlineTextBox")
    assert "2 of 10" in read  # as a screen reader has it
    page.close()
