"""Building blocks of the user's own: named everywhere, written down, refused in time, never imported unasked."""

import dataclasses
import importlib
import json
import sys

import own_blocks
import pytest
import torch
from own_blocks import Blend, Cauchy, Constant, Cubed, Flipped, LogUniform, OfAFunction, Shared

from simdistill.cli import main
from simdistill.comparison.grid import product
from simdistill.config.expressions import expression, names_code, parse_expression
from simdistill.config.recipes import RECIPES, Recipe
from simdistill.config.settings import read_toml, settings_from_mapping, to_mapping, to_toml
from simdistill.method.ema import EMA, Averaging
from simdistill.method.noise import Truncated
from simdistill.method.objectives import Objective, ScoreImplicitMatching
from simdistill.runs.folder import RunFolder
from simdistill.teachers.loading import load_teacher
from simdistill.workflows.distilling import distill, resume
from simdistill.workflows.models import recipe_of

# ---- parsed and written


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("own_blocks:Cauchy", Cauchy()),
        ("own_blocks:Cauchy()", Cauchy()),
        (" own_blocks:Cauchy ( c = 2 ) ", Cauchy(c=2.0)),
        ("ScoreImplicitMatching(own_blocks:Cauchy(0.5))", ScoreImplicitMatching(Cauchy(0.5))),
        ("own_blocks:Blend(own_blocks:Cauchy(c=0.5), share=1)", Blend(Cauchy(0.5), share=1.0)),
        ("own_blocks:Blend(SquaredL2)", Blend(parse_expression("SquaredL2()"))),
        ("Truncated(own_blocks:LogUniform(low=1e-3), 0.1, 1)", Truncated(LogUniform(low=1e-3), 0.1, 1.0)),
        ("own_blocks:Blend(note='a b:C(d)')", Blend(note="a b:C(d)")),
        ('own_blocks:Blend(note="x:Y", share=0.25)', Blend(note="x:Y", share=0.25)),
    ],
)
def test_expressions_name_a_module_and_a_class(text, expected):
    found = parse_expression(text)
    assert found == expected
    assert type(found) is type(expected)
    assert parse_expression(expression(found)) == expected


def test_the_written_form_is_the_one_that_is_read():
    assert expression(Blend(Cauchy(0.5), note="it's")) == (
        'own_blocks:Blend(distance=own_blocks:Cauchy(c=0.5), share=0.5, note="it\'s")'
    )
    assert expression((EMA(5.0), Constant(0.5))) == "(EMA(half_life=5.0, ramp_up=0.05), own_blocks:Constant(share=0.5))"


OWN = Recipe(
    method=Shared(),
    objective=Blend(Cauchy(0.1), 0.2, "a note: (odd) [one], 'quoted'"),
    generator_noise=LogUniform(0.1, 5.0),
    generator_weighting=Cubed(2),
    online_noise=Truncated(LogUniform(), 0.05, 10.0),
    online_weighting=Cubed(),
    ema=(EMA(100.0), Constant(0.75)),
)


def test_every_place_takes_them_and_a_file_gives_them_back(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(to_toml(to_mapping(OWN)))
    found = settings_from_mapping(RECIPES["listing-1"], read_toml(path))
    assert found == dataclasses.replace(OWN, teacher="")
    assert isinstance(found.objective.distance, Cauchy)
    derived = Recipe(objective=Flipped(Cauchy(3.0)))
    assert to_mapping(derived)["objective"] == "own_blocks:Flipped(distance=own_blocks:Cauchy(c=3.0))"
    assert settings_from_mapping(Recipe(), to_mapping(derived)) == derived


def test_the_command_line_takes_them(capsys):
    words = [
        *("--objective", "own_blocks:Blend(own_blocks:Cauchy(c=0.1))"),
        *("--generator-noise", "own_blocks:LogUniform(0.01, 20)"),
        *("--online-weighting", "own_blocks:Cubed"),
        *("--ema", "EMA(100)", "own_blocks:Constant(0.5)"),
        *("--method", "own_blocks:Shared"),
    ]
    assert main(["distill", "digits", *words, "--dry-run", "--json"]) == 0
    recipe = settings_from_mapping(Recipe(), json.loads(capsys.readouterr().out)["recipe"])
    assert recipe.objective == Blend(Cauchy(0.1))
    assert recipe.generator_noise == LogUniform(0.01, 20.0)
    assert recipe.online_weighting == Cubed()
    assert recipe.ema == (EMA(100.0), Constant(0.5))
    assert recipe.method == Shared()


def test_a_comparison_varies_them():
    grid = product({"generator_noise": ["Karras()", "own_blocks:LogUniform(0.01, 20)"]})
    assert [settings["generator_noise"] for settings in grid.values()][1] == LogUniform(0.01, 20.0)
    with pytest.raises(ValueError, match="left out: it is the value own_blocks:LogUniform, given before"):
        product({"generator_noise": ["own_blocks:LogUniform", "own_blocks:LogUniform(0.01)"]})


# ---- refused


@pytest.mark.parametrize(
    ("key", "text", "told"),
    [
        ("objective", "own_blocks:Plain()", "own_blocks:Plain must be a dataclass"),
        ("objective", "own_blocks:local()", "own_blocks:local must be a dataclass"),
        ("objective", "os:system('true')", "os:system must be a dataclass"),
        ("objective", "own_blocks:WithoutError()", "is not one of ScoreImplicitMatching"),
        ("objective", "own_blocks:Cauchy()", "is not one of ScoreImplicitMatching"),
        ("objective", "ScoreImplicitMatching(own_blocks:HalfADistance)", "distance = .* is not one of SquaredL2"),
        ("generator_noise", "own_blocks:Constant()", "is not one of LogNormal"),
        ("generator_noise", "simdistill.method.weightings:Uniform()", "is not one of LogNormal"),
        ("online_weighting", "own_blocks:Blend()", "is not one of Uniform"),
        ("method", "own_blocks:Blend()", "is not one of package.module:Class"),
        ("objective", "own_blocks:Blent()", "has no attribute 'Blent'; is the module on PYTHONPATH"),
        ("objective", "no_blocks:Blend()", "No module named 'no_blocks'; is the module on PYTHONPATH"),
        ("objective", "own_blocks:Blend(shar=1)", "no argument shar; did you mean share"),
        ("objective", "own_blocks:Blend(share='half')", "share = 'half': input should be a valid number"),
        ("objective", "own_blocks:Blend(1, 2, 3, 4)", "takes 3 argument"),
        ("objective", "own_blocks:Blend(share=__import__('os'))", "only names|unknown name"),
    ],
)
def test_what_does_not_fit_is_refused(key, text, told):
    with pytest.raises(ValueError, match=told):
        settings_from_mapping(Recipe(), {key: text})


def of_a_script():
    """An objective of a class as the `__main__` script would define it."""

    @dataclasses.dataclass(frozen=True)
    class Mine(ScoreImplicitMatching):
        pass

    Mine.__module__, Mine.__qualname__ = "__main__", "Mine"
    sys.modules["__main__"].Mine = Mine
    return Mine()


@pytest.mark.parametrize(
    ("objective", "told"),
    [
        (own_blocks.Plain(), "objective = .*cannot be written .*frozen dataclass"),
        (lambda x_0, y, error: y.flatten(1).sum(1), "objective = .*cannot be written"),
        (OfAFunction(), "objective = .*cannot be written"),
        (own_blocks.local(), r"objective = own_blocks:local\.<locals>\.Local: cannot be imported"),
        (of_a_script(), "objective = __main__:Mine: cannot be imported"),
    ],
    ids=["no dataclass", "function", "field", "local", "script"],
)
def test_what_cannot_be_written_down_is_refused_before_anything_is(tmp_path, objective, told):
    recipe = dataclasses.replace(RECIPES["digits"], objective=objective)
    with pytest.raises(ValueError, match=told):
        distill(load_teacher("digits"), recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ---- not imported unasked


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("mine:Block()", True),
        ("mine.blocks:Block(c=1)", True),
        ("mine.blocks:Block", True),
        ("ScoreImplicitMatching(mine.blocks:Block)", True),
        ("mine.blocks.Block", True),
        ("mine.Block()", True),
        ("ScoreImplicitMatching(distance='mine:Block()')", True),
        (["EMA(5)", "mine:Block(1)"], True),
        ("ScoreImplicitMatching(PseudoHuber(c=0.03))", False),
        ("Uniform", False),
        ("EMA(5.5)", False),
        (["EMA(5)"], False),
        ("a text", False),
        (3, False),
        (0.5, False),
        (True, False),
        ([0.0, 0.999], False),
    ],
)
def test_what_names_code(value, named):
    assert names_code(value, tuple[Averaging, ...] if isinstance(value, list) else Objective) == named


STRANGE = """
import dataclasses, pathlib
pathlib.Path(__file__).with_name("mark").touch()
@dataclasses.dataclass(frozen=True)
class Block:
    def __call__(self, x_0, y, error):
        return y.flatten(1).sum(1)
"""


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A module that leaves a mark when it is imported, and a way to make runs that name it."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "strange_blocks.py").write_text(STRANGE)
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.delitem(sys.modules, "strange_blocks", raising=False)
    importlib.invalidate_caches()
    return tmp_path / "code" / "mark"


def a_run(path, text):
    return RunFolder.create(path, {**to_mapping(RECIPES["digits"]), "verb": "distill", "batch": 5, "objective": text})


@pytest.mark.parametrize(
    "text",
    [
        "strange_blocks:Block()",
        "strange_blocks:Block",
        "strange_blocks.Block()",
        "strange_blocks.Block",
        "ScoreImplicitMatching(strange_blocks:Block())",
        "ScoreImplicitMatching(distance=strange_blocks.Block)",
    ],
)
def test_a_strangers_run_imports_nothing(tmp_path, stranger, text):
    run = a_run(tmp_path / "run", text)
    try:
        recipe = recipe_of(run)
    except ValueError:
        pass
    else:
        assert recipe == dataclasses.replace(RECIPES["digits"], batch=5, objective=Recipe().objective)
    assert not stranger.exists()
    with pytest.raises(ValueError, match=r"objective.*strange_blocks"):
        resume(run.path)
    assert not stranger.exists()


def test_a_run_that_is_trusted_imports_what_it_names(tmp_path, stranger):
    run = a_run(tmp_path / "run", "strange_blocks:Block()")
    recipe = recipe_of(run, trusted=True)
    assert stranger.exists()
    assert (recipe.batch, type(recipe.objective).__name__) == (5, "Block")
    assert recipe.objective(*torch.ones(3, 2, 4)).tolist() == [4.0, 4.0]
