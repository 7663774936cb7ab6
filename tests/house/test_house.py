"""What a reader can rely on: small rooms, few of them at the top, and a short way from the command line to the loss."""

import inspect
from pathlib import Path

import pytest

import simdistill
from simdistill.cli import main
from simdistill.method.algorithm import ScoreDistillation

PACKAGE = Path(simdistill.__file__).parent
LINES, TOP, HOPS = 300, 10, 8


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_is_longer_than_one_reads_at_once(path):
    assert len(path.read_text().splitlines()) <= LINES


def test_few_modules_stand_at_the_top():
    assert len(list(PACKAGE.glob("*.py"))) <= TOP


def test_algorithm_2_stands_on_one_screen():
    """Networks, updates and both losses."""
    assert len(inspect.getsource(ScoreDistillation).splitlines()) <= 75


def test_the_way_from_the_command_line_to_the_loss_is_short(tmp_path, monkeypatch):
    loss, ways = ScoreDistillation.generator_loss, []

    def counted(self, networks, batch):
        frames = [frame for frame in inspect.stack() if Path(frame.filename).is_relative_to(PACKAGE)]
        ways.append([f"{Path(frame.filename).name}:{frame.function}" for frame in reversed(frames)])
        return loss(self, networks, batch)

    monkeypatch.setattr(ScoreDistillation, "generator_loss", counted)
    small = ["--iterations", "1", "--batch", "4", "--evaluation-samples", "0", "--out", str(tmp_path / "run")]
    assert main(["distill", "digits", *small]) == 0
    (way,) = ways
    assert way[0] == "cli.py:main"
    assert len(way) <= HOPS, way  # from the first of them to the loss
