"""A run's folder: it is not clobbered, and a line that a crash cut short is left out."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from simdistill.commands.auto import auto_options
from simdistill.commands.settings import distill_options
from simdistill.config.recipes import RECIPES, Recipe
from simdistill.config.settings import to_mapping
from simdistill.method.ema import PowerEMA
from simdistill.runs.folder import RunFolder, repeating


def test_run_folders_are_not_clobbered(tmp_path):
    run = RunFolder.create(tmp_path / "run", {"verb": "distill", "seed": 1})
    assert run.configuration() == {"verb": "distill", "seed": 1}
    (run.path / "precious").write_text("x")
    with pytest.raises(ValueError, match=r"--out = .*: exists; give another --out, --overwrite it"):
        RunFolder.create(run.path, {"verb": "distill", "seed": 2})
    assert (run.path / "precious").exists()
    assert run.configuration()["seed"] == 1
    RunFolder.create(run.path, {"verb": "distill", "seed": 2}, overwrite=True)
    assert not (run.path / "precious").exists()

    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.toml").write_text('title = "somebody else\'s"')
    (tmp_path / "home" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="exists, and is not a run's folder"):
        RunFolder.create(tmp_path / "home", {"verb": "distill"}, overwrite=True)
    assert (tmp_path / "home" / "thesis.tex").exists()
    with pytest.raises(ValueError, match="is a file"):
        RunFolder.create(tmp_path / "home" / "thesis.tex", {"verb": "distill"}, overwrite=True)
    with pytest.raises(ValueError, match="not a run's folder"):
        RunFolder.open(tmp_path / "nowhere")


def test_a_folder_that_cannot_be_gone_on_with_is_told_with_the_remedy(tmp_path):
    run = RunFolder.with_config(tmp_path / "run", {"verb": "distill", "seed": 1})
    assert RunFolder.with_config(run.path, {"verb": "distill", "seed": 1}) == run
    assert RunFolder.with_config(run.path, {"verb": "distill"}) == run
    for other in ({"verb": "distill", "seed": 2}, {"verb": "distill", "batch": 8}):
        with pytest.raises(ValueError, match="was made with other settings; delete it, or give another --out"):
            RunFolder.with_config(run.path, other)
    run.log_metrics({"iteration": 1})
    remedy = f"{run.path}: damaged or not a run's folder"
    run.config.write_text("seed = ")
    with pytest.raises(ValueError, match=f"{remedy}; .*config.toml: cannot be read as TOML"):
        RunFolder.with_config(run.path, {"verb": "distill"})
    run.config.unlink()
    with pytest.raises(ValueError, match=rf"{remedy}; .*\(no config.toml in it\)"):
        RunFolder.with_config(run.path, {"verb": "distill"})


def test_a_metrics_line_that_a_crash_cut_short_is_left_out(tmp_path):
    run = RunFolder.create(tmp_path / "run", {"verb": "distill"})
    run.log_metrics({"iteration": 1})
    run.log_metrics({"iteration": 2})
    with run.metrics.open("a") as file:
        file.write('{"iteration": 3, "lo')
    assert run.read_metrics() == [{"iteration": 1}, {"iteration": 2}]
    run.forget_after(1)
    assert run.metrics.read_text() == '{"iteration": 1}\n'


@pytest.mark.parametrize("name", [*RECIPES, "of one's own"])
def test_the_command_that_repeats_a_run_has_all_its_settings(tmp_path, name):
    """Whichever recipe it was and whatever was changed: those of another one would have other values."""
    recipe = RECIPES.get(name, replace(Recipe(), teacher="mine:teacher"))
    recipe = replace(recipe, seed=17, iterations=123, ema=(PowerEMA(0.03),))
    run = RunFolder.create(tmp_path / "a run", {"verb": "distill", **to_mapping(recipe)})
    words = shlex.split(run.config.read_text().splitlines()[0].removeprefix("# repeated by: "))
    assert words[:2] == ["simdistill", "distill"]
    own = [] if recipe.teacher else ["--teacher", "x:y"]  # for auto, which these recipes leave to be named
    if words[2] == "auto":
        found = auto_options([*words[2:], *own], "distill", "").options
    else:
        found = distill_options(words[2:], "distill", "")[1]
    assert found.settings == replace(recipe, teacher=recipe.teacher or "x:y")
    assert found.out == Path("NEW_FOLDER")


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        ("digits", "distill digits --config c.toml --out NEW_FOLDER"),
        ("/data/my.pkl", "distill auto --config c.toml --out NEW_FOLDER"),
        ("teacher", "distill auto --config c.toml --out NEW_FOLDER --teacher package.module:function"),
    ],
)
def test_the_recipe_in_it_is_the_teachers(teacher, said):
    assert repeating({"teacher": teacher}, Path("c.toml")) == f"simdistill {said}"
