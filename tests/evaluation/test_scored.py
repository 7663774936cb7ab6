"""Means, deviations and paired differences against numbers worked out by hand."""

import io

import polars as pl
import pytest
import torch

from simdistill.evaluation.scored import Scored


def scored(teacher, student):
    """Two models with one score."""
    names = [f"{i}.png" for i in range(len(teacher))]
    values = {"teacher": {"clip": torch.tensor(teacher)}, "student": {"clip": torch.tensor(student)}}
    prompts = [f"prompt {i}, with a comma" for i in range(len(teacher))]
    return Scored(prompts, {"clip": "weights-1"}, {"teacher": names, "student": names}, values)


def test_figures():
    figures = scored([1.0, 2.0, 6.0], [2.0, 4.0, 6.0]).figures()
    assert figures["prompts"] == 3
    assert figures["weights"] == {"clip": "weights-1"}
    teacher, student = (figures["models"][name]["clip"] for name in ("teacher", "student"))
    assert teacher == {"mean": 3.0, "std": pytest.approx(7**0.5)}  # deviations -2, -1, 3
    assert student == {"mean": 4.0, "std": pytest.approx(2.0)}
    assert figures["compared_with"] == "teacher"
    # 1, 2, 0: mean 1, deviation 1, over the root of 3
    assert figures["differences"] == {"student": {"clip": {"mean": 1.0, "error": pytest.approx(3**-0.5)}}}


def test_the_spread_of_the_prompts_is_no_error_of_a_difference():
    figures = scored([0.0, 100.0, 1000.0], [1.0, 101.0, 1001.0]).figures()
    assert figures["differences"]["student"]["clip"] == {"mean": 1.0, "error": pytest.approx(0, abs=1e-9)}


def test_one_prompt_has_no_spread():
    figures = scored([1.0], [3.0]).figures()
    assert figures["models"]["teacher"]["clip"] == {"mean": 1.0, "std": None}
    assert figures["differences"]["student"]["clip"] == {"mean": 2.0, "error": None}


def test_a_row_a_picture():
    table = pl.read_csv(io.BytesIO(scored([1.0, 2.0], [3.0, 4.0]).table()))
    assert table.rows() == [
        ("teacher", "0.png", "prompt 0, with a comma", 1.0),
        ("teacher", "1.png", "prompt 1, with a comma", 2.0),
        ("student", "0.png", "prompt 0, with a comma", 3.0),
        ("student", "1.png", "prompt 1, with a comma", 4.0),
    ]
    assert table.columns == ["model", "picture", "prompt", "clip"]
