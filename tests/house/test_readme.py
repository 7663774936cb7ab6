"""README and first notebook: short, with code that runs as it stands, and whose figures are as they say."""

import json
import re
from pathlib import Path

import pytest
import yaml
from packaging.version import Version

import simdistill
from docs import front
from simdistill.runs.folder import RunFolder

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FIGURE = r"(\w+): NFE (\d+), Fréchet distance ([\d.]+)"


def figures(text):
    return {name: (int(nfe), float(distance)) for name, nfe, distance in re.findall(FIGURE, text)}


def test_the_first_screen_is_short():
    screen, details = README.split("## Details")
    assert len(screen.split()) <= 450
    assert len(details.split()) > 450
    assert re.findall("^## (.*)", screen, re.MULTILINE) == [
        "Install", "Two commands", "Ten lines", "Beside its peers", "Limits"
    ]  # fmt: skip


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))
    assert [target for target in targets if "://" not in target and not (ROOT / target).exists()] == []


def test_make_targets_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md", "docs/index.md", "docs/faces.md"):
        code = re.findall(r"```sh\n(.*?)```|`(make [^`]*)`", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
        named = {name for part in code for text in part for name in re.findall(r"^make ([\w-]+)", text, re.MULTILINE)}
        assert named <= targets, page


@pytest.mark.slow
def test_the_ten_lines_succeed_as_they_say(tmp_path, monkeypatch, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    said, found = figures(README), figures(capsys.readouterr().out)
    assert list(said) == list(found) == ["undistilled", "student", "teacher"]
    for name, (nfe, distance) in said.items():
        assert found[name] == (nfe, pytest.approx(distance, rel=0.2)), name
    assert found["student"][1] < found["undistilled"][1] / 10
    assert RunFolder.open(tmp_path / "runs" / "first").report.exists()
    assert names["images"].shape == (64, 1, 8, 8)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch, capsys):
    notebook = json.loads((ROOT / "examples" / "first_steps.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["outputs"] for cell in cells] == [[]] * len(cells)  # none that grow stale
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for cell in cells:
        exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    shown = capsys.readouterr().out.splitlines()
    distances = {line.split()[0]: float(re.findall(r"frechet ([\d.]+)", line)[0]) for line in shown}
    assert distances["teacher"] < distances["student"] < distances["undistilled"] / 10
    assert names["clothes"].shape == (40, 1, 32, 32)


@pytest.mark.slow
def test_the_picture_at_the_front_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(front, "PICTURE", tmp_path / "front.png")
    monkeypatch.setattr(front, "ROWS", 1)
    front.main()
    assert (tmp_path / "front.png").stat().st_size > 5_000


def test_one_version_everywhere():
    """The installed one may be older, in a checkout that was not installed anew."""
    written = re.findall(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert written == [citation["version"]]
    assert f"## [Unreleased]: {written[0]}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert Version(simdistill.__version__) <= Version(written[0])


def test_the_citation_names_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # what the format requires
    (paper,) = citation["references"]
    assert [author["family-names"] for author in paper["authors"]] == ["Luo", "Huang", "Geng", "Kolter", "Qi"]
    assert [one["value"] for one in paper["identifiers"]] == ["arXiv:2410.16794"]
