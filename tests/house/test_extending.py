"""docs/extending.md: its code is run, and so are its commands, made small."""

import importlib
import json
import os
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from simdistill.cli import main
from simdistill.comparison import cell as compare_cell
from simdistill.comparison import page as compare_page
from simdistill.config.expressions import expression, parse_expression
from simdistill.config.recipes import RECIPES
from simdistill.runs.folder import RunFolder
from simdistill.teachers import families

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = {code.split("\n")[0].removeprefix("# "): code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)}
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.strip().split("\n")]
SMALL = ["--iterations", "2", "--batch", "4", "--evaluation-samples", "20"]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The page's files on the path, and a small evaluation."""
    for name, code in BLOCKS.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        monkeypatch.delitem(sys.modules, name)
    importlib.invalidate_caches()
    monkeypatch.setattr(compare_cell, "SAMPLES", 20)
    monkeypatch.setattr(compare_page, "SAMPLES", 20)
    return tmp_path


def commands(verb):
    return [shlex.split(line)[1:] for line in COMMANDS if line.startswith(f"simdistill {verb} digits")]


def test_the_page_adds_one_of_each():
    files = ["distances", "objectives", "noise", "metrics", "methods", "wan"]
    assert list(BLOCKS) == [f"mine/{name}.py" for name in files]
    assert len(commands("distill")) == 5
    assert len(commands("compare")) == 1


@pytest.mark.usefixtures("mine")
def test_the_distances_gradient_is_that_of_its_value():
    distance = parse_expression("mine.distances:Cauchy(c=0.5)")
    y = torch.randn(7, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(distance.value(y).sum(), y)
    torch.testing.assert_close(distance.gradient(y), expected)
    assert expression(distance) == "mine.distances:Cauchy(c=0.5)"


@pytest.mark.usefixtures("mine")
def test_the_noise_distribution_returns():
    noise, u = parse_expression("mine.noise:LogUniform(0.01, 20)"), torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    torch.testing.assert_close(noise.cdf(noise.quantile(u)), u)


@pytest.mark.parametrize(
    "words",
    [pytest.param(words, marks=pytest.mark.slow if k else ()) for k, words in enumerate(commands("distill"))],
    ids=lambda words: words[-1],
)
@pytest.mark.usefixtures("mine")
def test_the_commands_train(words, capsys):
    assert main([*words, *SMALL, "--out", "runs/it", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    written = RunFolder.open(Path("runs/it")).configuration()
    option = words[2].removeprefix("--").replace("-", "_")
    assert "mine." in str(written[option])
    again = ["distill", "digits", "--config", "runs/it/config.toml", *SMALL[:4], "--evaluation-samples", "0"]
    again += ["--iterations", "1", "--out", "runs/again"]
    assert main(again) == 0  # from TOML
    assert RunFolder.open(Path("runs/again")).configuration()[option] == written[option]
    if option == "metrics":
        assert figures["student"]["memorised"].keys() >= {"mean", "std", "seeds", "values"}
        assert "Memorised" in RunFolder.open(Path("runs/it")).report.read_text()
    if option == "method":
        assert any("outside" in record for record in RunFolder.open(Path("runs/it")).read_metrics())


@pytest.mark.slow
@pytest.mark.usefixtures("mine")
def test_an_objective_is_compared(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path.cwd()), str(Path(__file__).parents[2])]))
    (words,) = commands("compare")
    small = ["--iterations", "2", "--batch", "4", "--milestones", "1", "--seeds", "1", "--samples", "20"]
    assert main([*words, *small, "--evaluation-seeds", "1", "--workers", "1", "--out", "runs/compared"]) == 0
    assert "mine.objectives:Blend(share=0.2)" in Path("runs/compared/cells.csv").read_text()


@pytest.mark.usefixtures("mine")
def test_the_family_is_the_one_that_is_tried_on_wans_own_pipeline(monkeypatch):
    """tests/teachers/families/test_families.py reads a folder by the helper's, and compares its videos."""
    found = []
    for name in ("wan", "mine.wan"):
        monkeypatch.setattr(families, "register", found.append)
        sys.modules.pop(name, None)
        importlib.import_module(name)
        sys.modules.pop(name)
    (tried, shown), config = found, {"text_dim": 4096, "in_channels": 16}
    assert shown.network == tried.network == "WanTransformer3DModel"
    assert shown.condition(config) == tried.condition(config)
    assert shown.shape(config) == tried.shape(config) == (16, 2, 8, 8)
    for name in ("process", "part", "formerly", "unused"):
        assert getattr(shown, name) == getattr(tried, name)
    assert shown.call.__code__.co_code == tried.call.__code__.co_code
    (one,), (other,) = shown.pipelines, tried.pipelines
    assert (one.name, one.limit, one.encode.__code__.co_code) == (
        other.name,
        other.limit,
        other.encode.__code__.co_code,
    )
    assert shown.latents[0].size(config, (16, 2, 8, 8)) == tried.latents[0].size(config, (16, 2, 8, 8)) == (5, 64, 64)


@pytest.mark.usefixtures("mine")
def test_in_python():
    objective = parse_expression("mine.objectives:Blend(share=0.2)")
    recipe = replace(RECIPES["digits"], objective=objective)
    assert recipe.objective(*torch.ones(3, 2, 4)).shape == (2,)
