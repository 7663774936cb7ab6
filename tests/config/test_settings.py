import dataclasses
import math
from typing import get_type_hints

import pytest
from drawn_blocks import blocks, many
from hypothesis import given
from hypothesis import strategies as st

from simdistill.config.expressions import choices, convert, place_of
from simdistill.config.recipes import RECIPES, Recipe
from simdistill.config.settings import read_toml, settings_from_mapping, to_mapping, to_toml
from simdistill.method.distances import Distance, Huber
from simdistill.method.noise import (
    DiscreteVP,
    Karras,
    LogNormal,
    NoiseDistribution,
)
from simdistill.method.objectives import DiffInstruct, Objective, ScoreIdentity
from simdistill.method.weightings import EDM, InverseError, Weighting


def test_settings_replace_those_of_the_base_and_leave_the_others():
    base = RECIPES["cifar10-cond"]
    made = settings_from_mapping(
        base,
        {
            "objective": "ScoreIdentity(alpha=1)",
            "generator_noise": Karras(rho=5.0),
            "betas": [0.5, 0.9],
            "sigma_init": 3,
            "decay": "linear",
        },
    )
    assert made == dataclasses.replace(
        base,
        objective=ScoreIdentity(alpha=1.0),
        generator_noise=Karras(rho=5.0),
        betas=(0.5, 0.9),
        sigma_init=3.0,
        decay="linear",
    )
    assert base == RECIPES["cifar10-uncond"]
    assert settings_from_mapping(base, {}) == base


def test_every_wrong_key_is_listed_at_once_and_a_right_one_is_not():
    with pytest.raises(ValueError, match="bach") as caught:
        settings_from_mapping(
            Recipe(),
            {
                "bach": 3,
                "batch": "many",
                "betas": [0.1],
                "decay": "cosine",
                "generator_noise": "Uniform",
                "objective": "Foo(1)",
                "online_noise": "Karras(rho=0)",
                "online_weighting": 3,
                "seed": 7,
            },
        )
    problems = dict(problem.split(": ", 1) for problem in str(caught.value).split("; ") if ": " in problem)
    assert problems["bach"] == "unknown setting"
    assert "did you mean batch?" in str(caught.value)
    assert problems["batch"].startswith("'many': input should be a valid integer")
    assert problems["betas"].startswith("[0.1]: ")
    assert problems["decay"].startswith("'cosine': input should be 'none' or 'linear'")
    assert problems["generator_noise"].startswith("Uniform() is not one of LogNormal, Karras")
    assert problems["objective"].startswith("'Foo(1)': unknown name Foo")
    assert problems["online_noise"] == "Karras: rho = 0.0: must be positive"
    assert problems["online_weighting"] == "3 is not one of Uniform, EDM, InverseError, VPScore, package.module:Class"
    assert "seed" not in problems


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch": 0}, "batch = 0: must be at least 1"),
        ({"online_steps": 0}, "online_steps = 0: must be at least 1"),
        ({"iterations": 0}, "iterations = 0: must be at least 1"),
        ({"sigma_init": 0.0}, "sigma_init = 0.0: must be positive"),
        ({"generator_lr": math.nan}, "generator_lr = nan: must be positive"),
        ({"online_lr": -1.0}, "online_lr = -1.0: must be positive"),
        ({"warmup": -1}, "warmup = -1: must be at least 0"),
        ({"ema": []}, r'ema = \(\): must be at least one, as "EMA\(0\)" for none'),
        ({"betas": (0.0, 1.0)}, r"betas = \(0.0, 1.0\): must be both in \[0, 1\)"),
        ({"gradient_accumulation": 3}, "gradient_accumulation = 3: must be a divisor of batch = 256"),
    ],
)
def test_a_recipe_that_cannot_be_names_the_setting_its_value_and_the_remedy(values, message):
    with pytest.raises(ValueError, match=message):
        settings_from_mapping(Recipe(), values)


def test_building_blocks_have_their_places_and_nothing_else_has():
    hints = get_type_hints(Recipe)
    chosen = {"method", "objective", "generator_noise", "generator_weighting", "online_noise", "online_weighting"}
    assert {name for name, kind in hints.items() if place_of(kind)} == chosen
    assert place_of(int | None) is None
    assert choices(Objective) == "ScoreImplicitMatching, ScoreIdentity, DiffInstruct, package.module:Class"


def test_convert_reads_an_expression_only_where_a_building_block_belongs():
    assert convert("Huber(delta=1)", Distance) == Huber(delta=1.0)
    assert convert("Huber(delta=1)", str) == "Huber(delta=1)"
    assert convert([0, 0.5], tuple[float, float]) == (0.0, 0.5)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_stored_as_toml_and_read_again_is_the_same_recipe(name, tmp_path):
    path, recipe = tmp_path / "config.toml", RECIPES[name]
    path.write_text(to_toml(to_mapping(recipe)))
    other = dataclasses.replace(  # differs from every recipe in every choice
        Recipe(objective=DiffInstruct(), seed=9, batch=512, warmup=3),
        generator_noise=LogNormal(0.0, 1.0),
        online_noise=Karras(rho=2.0),
        generator_weighting=EDM(9.0),
        online_weighting=InverseError(),
    )
    assert settings_from_mapping(Recipe(), read_toml(path)) == recipe
    assert settings_from_mapping(other, read_toml(path)) == recipe
    assert settings_from_mapping(recipe, read_toml(path)) == recipe


@given(data=st.data())
@many
def test_any_recipe_is_there_and_back(data, tmp_path_factory):
    kinds = {
        "objective": Objective,
        "generator_noise": NoiseDistribution,
        "online_noise": NoiseDistribution,
        "online_weighting": Weighting,
    }
    drawn = {name: data.draw(blocks(kind)) for name, kind in kinds.items()}
    recipe = Recipe(
        teacher=data.draw(st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)),
        sigma_init=data.draw(st.floats(1e-300, 1e300)),
        betas=(data.draw(st.floats(0, 0.999)), 0.999),
        **drawn,
    )
    path = tmp_path_factory.mktemp("recipe") / "config.toml"
    path.write_bytes(to_toml(to_mapping(recipe)).encode())
    assert settings_from_mapping(Recipe(), read_toml(path)) == recipe


def test_the_stored_text_is_plain_and_readable():
    values = to_mapping(RECIPES["listing-1"])
    assert values["betas"] == [0.0, 0.999]
    lines = to_toml(values).splitlines()
    assert 'objective = "ScoreImplicitMatching(distance=PseudoHuber(c=0.03))"' in lines
    assert "betas = [0.0, 0.999]" in lines
    assert 'teacher = "gaussians-25"' in lines
    assert "batch = 2000" in lines
    assert len(lines) == len(dataclasses.fields(Recipe)) - 1  # there is no `method`


def test_settings_without_a_value_are_left_out():
    @dataclasses.dataclass(frozen=True)
    class Optional:
        name: str | None = None
        size: int = 3

    assert to_mapping(Optional()) == {"size": 3}
    assert to_mapping(Optional("x")) == {"name": "x", "size": 3}


@pytest.mark.parametrize("content", [b"batch = ", b"batch = 1\nbatch = 2", b"\xff\xfe"])
def test_a_file_that_is_not_toml_is_named(content, tmp_path):
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.toml: cannot be read as TOML \("):
        read_toml(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.toml: no such file"):
        read_toml(tmp_path / "absent.toml")


def test_a_hand_written_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('# faster\nbatch = 64\ngenerator_noise = "DiscreteVP(steps=50)"\nbetas = [0, 0.9]\n')
    expected = Recipe(batch=64, generator_noise=DiscreteVP(steps=50), betas=(0.0, 0.9))
    assert settings_from_mapping(Recipe(), read_toml(path)) == expected
