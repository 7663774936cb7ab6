"""What is compared: variants, cells, the paper's own grids, and the family of methods."""

import itertools
import math
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from simdistill.comparison.grid import FIXED, GRIDS, Cell, cells, product, ready_made, varied
from simdistill.config.expressions import parse_expression
from simdistill.config.recipes import DMD_TIMES, RECIPES, Recipe
from simdistill.config.settings import field_types
from simdistill.method.distances import DISTANCES, PseudoHuber
from simdistill.method.ema import EMA, PowerEMA
from simdistill.method.noise import Karras, LogNormal, Truncated
from simdistill.method.objectives import OBJECTIVES, DiffInstruct, ScoreIdentity, ScoreImplicitMatching
from simdistill.method.weightings import InverseError, Uniform


def test_every_combination_is_a_variant_called_as_it_was_written():
    grid = product({"generator-noise": ["Karras()", "LogNormal(-1,1.2)"], "generator_lr": ["1e-4", "3e-4", "1e-3"]})
    assert len(grid) == 6
    assert grid["generator_noise LogNormal(-1,1.2), generator_lr 3e-4"] == {
        "generator_noise": LogNormal(-1.0, 1.2),
        "generator_lr": 3e-4,
    }
    assert varied(grid) == ["generator_noise", "generator_lr"]


def test_pairs_of_numbers_are_values_to_compare():
    grid = product({"betas": ["0.0 0.999", "(0.5, 0.99)"], "guidance_interval": ["0.3,3", "[0 inf]"]})
    assert [tuple(settings.values()) for settings in grid.values()] == [
        ((0.0, 0.999), (0.3, 3.0)),
        ((0.0, 0.999), (0.0, math.inf)),
        ((0.5, 0.99), (0.3, 3.0)),
        ((0.5, 0.99), (0.0, math.inf)),
    ]
    assert next(iter(grid)) == "betas 0.0 0.999, guidance_interval 0.3,3"


@pytest.mark.parametrize(
    ("axes", "told"),
    [
        ({"noise": ["Karras()"]}, "--over = 'noise': must be one of .*objective, generator_noise"),
        ({"seed": ["1"]}, r"--over = 'seed': .*\(training seeds: --seeds\)"),
        ({"teacher": ["digits"]}, "--over = 'teacher'"),
        ({"generator-noise": []}, "--over = 'generator_noise': must be followed by the values"),
        ({"generator_noise": ["Karas()"]}, "--over generator_noise: .*did you mean Karras"),
        ({"generator_lr": ["fast"]}, "--over generator_lr: 'fast'"),
        ({"betas": ["0.0"]}, r"--over betas: .*0\.0.*: field required"),
        ({"betas": ["0 fast"]}, "--over betas: .*fast.*: input should be a valid number"),
        ({"betas": ["0 0.9", "(0.0, 0.9)"]}, r"betas = '\(0.0, 0.9\)': must be left out: it is the value 0 0.9,"),
        (
            {"generator-lr": ["1e-4", "3e-4", "0.0001"]},
            "--over generator_lr = '0.0001': must be left out: it is the value 1e-4, given before",
        ),
        ({"generator_lr": ["1e-4", "1e-4"]}, "--over generator_lr = '1e-4': must be left out"),
        ({"generator_noise": ["LogNormal(-1, 1)", "LogNormal(mean=-1,std=1.0)"]}, "LogNormal.*: must be left out"),
    ],
)
def test_what_cannot_be_compared_is_refused(axes, told):
    with pytest.raises(ValueError, match=told):
        product(axes)


def test_a_variant_that_is_no_recipe_is_named():
    with pytest.raises(ValueError, match=r"variant 'generator_lr -1': generator_lr = -1\.0: must be positive"):
        cells(Recipe(), product({"generator_lr": ["1e-4", "-1"]}), [0])
    with pytest.raises(ValueError, match="grid"):
        cells(Recipe(), {}, [0])


def test_a_comparison_cut_short_has_something_of_each_variant():
    found = cells(RECIPES["digits"], product({"generator_noise": ["Karras()", "LogNormal(-1, 1)"]}), [3, 4])
    assert [(cell.recipe.generator_noise, cell.seed) for cell in found] == [
        (Karras(), 3),
        (LogNormal(-1.0, 1.0), 3),
        (Karras(), 4),
        (LogNormal(-1.0, 1.0), 4),
    ]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_papers_grids_apply_to_every_recipe_and_share_its_budget(grid, recipe):
    variants = ready_made(grid, RECIPES[recipe])
    found = cells(RECIPES[recipe], variants, [0])
    assert [cell.variant for cell in found] == list(variants)
    assert list(variants)[: len(GRIDS[grid])] == list(GRIDS[grid])
    assert {getattr(cell.recipe, key) for cell in found for key in ("iterations", "batch")} == {
        RECIPES[recipe].iterations,
        RECIPES[recipe].batch,
    }
    assert not set(varied(variants)) & set(FIXED)
    assert set(varied(variants)) <= set(field_types(Recipe))


def test_figure_2_is_the_whole_grid_and_nothing_else_differs():
    methods = {"sim": ScoreImplicitMatching(PseudoHuber(0.03)), "sid": ScoreIdentity(1.2)}
    times = {"lognormal": Truncated(LogNormal(-3.5, 2.5), 0.002, 80.0), "karras": Karras()}
    weights = {"none": Uniform(), "sid": InverseError()}
    found = {cell.variant: cell.recipe for cell in cells(RECIPES["digits"], GRIDS["figure-2"], [0])}
    diff_instruct = found.pop("diff-instruct")
    assert diff_instruct == replace(RECIPES["digits"], objective=DiffInstruct(), generator_noise=LogNormal(-1.2, 1.2))
    assert found.keys() == {"-".join(names) for names in itertools.product(methods, times, weights)}
    for m, t, w in itertools.product(methods, times, weights):
        assert found[f"{m}-{t}-{w}"] == replace(
            RECIPES["digits"], objective=methods[m], generator_noise=times[t], generator_weighting=weights[w]
        )


def test_table_4_has_every_distance_once():
    distances = [settings["objective"].distance for settings in GRIDS["table-4"].values()]
    assert sorted(map(type, distances), key=str) == sorted(DISTANCES, key=str)
    assert PseudoHuber(c=0.03) in distances


def test_table_5_changes_one_choice_at_a_time():
    grid = ready_made("table-5", RECIPES["digits"])
    assert [settings.get("online_steps") for settings in grid.values()].count(2) == 1
    assert [len(settings) for settings in grid.values()] == [0] + [1] * 6
    assert set(varied(grid)) == {"online_steps", "objective", "ema"}
    first, *others = cells(RECIPES["digits"], grid, [0])
    assert first.recipe == RECIPES["digits"]
    assert all(other.recipe != first.recipe for other in others)


@pytest.mark.parametrize(
    ("own", "longer"),
    [
        (EMA(22_000.0), EMA(88_000.0)),
        (EMA(500_000.0, ramp_up=0.1), EMA(2_000_000.0, ramp_up=0.1)),
        (EMA(0.0), None),
        (PowerEMA(0.1), None),
    ],
)
def test_table_5_has_four_times_the_recipes_own_half_life(own, longer):
    recipe = replace(RECIPES["digits"], ema=(own, PowerEMA(0.2)))
    assert ready_made("table-5", recipe).get("EMA, ×4") == (longer and {"ema": (longer,)})


def test_the_family_has_each_methods_objective_and_published_weight():
    family = {name: (row["objective"], row["generator_weighting"]) for name, row in GRIDS["family"].items()}
    assert family == {
        "SIM": (ScoreImplicitMatching(PseudoHuber(c=0.03)), Uniform()),
        "SiD, alpha 1": (ScoreIdentity(1.0), InverseError()),
        "SiD, alpha 1.2": (ScoreIdentity(1.2), InverseError()),
        "Diff-Instruct": (DiffInstruct(), Uniform()),
        "DMD": (DiffInstruct(), InverseError()),
        "DMD, its times": (DiffInstruct(), InverseError()),
    }
    assert {type(objective) for objective, _ in family.values()} == set(OBJECTIVES)
    assert [name for name, row in GRIDS["family"].items() if "generator_noise" in row] == ["DMD, its times"]


def test_dmds_times_are_the_bins_from_2_to_98_percent_each_as_often():
    """sigma_k for k = 20 … 980 of 1000 bins, by the formula of Karras et al. (2022) for i = 999 - k."""
    low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
    bins = torch.tensor([(high + (999 - k) / 999 * (low - high)) ** 7 for k in range(20, 981)], dtype=torch.float64)
    n = len(bins)
    u = (torch.arange(3 * n, dtype=torch.float64) + 0.5) / (3 * n)
    torch.testing.assert_close(DMD_TIMES.quantile(u), bins.repeat_interleave(3), rtol=1e-9, atol=0)


def test_the_commands_in_the_docs_are_the_rows_of_the_family():
    page = (Path(__file__).parents[2] / "docs" / "family.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```bash\n(simdistill distill.*?)```", page, re.DOTALL)
    rows = {}
    for line in block.splitlines():
        _, _, recipe, *options = shlex.split(line, comments=True)
        assert recipe == "digits"
        pairs = zip(options[::2], options[1::2], strict=True)
        settings = {key.removeprefix("--").replace("-", "_"): parse_expression(text) for key, text in pairs}
        rows[line.partition("# ")[2]] = settings
    assert rows == GRIDS["family"]


def test_the_same_recipe_has_the_same_folder_whatever_it_is_called(tmp_path):
    cell = Cell("Karras(), of course", RECIPES["digits"])
    folder = cell.folder(tmp_path)
    assert folder.name == f"Karras-of-course-seed-0-{cell.digest}"
    folder.mkdir()
    assert Cell("another name", RECIPES["digits"]).folder(tmp_path) == folder
    changed = [
        replace(RECIPES["digits"], seed=1),
        replace(RECIPES["digits"], iterations=9),
        replace(RECIPES["digits"], objective=ScoreImplicitMatching(PseudoHuber(c=0.031))),
        replace(RECIPES["digits"], reference="other.npz"),
    ]
    digests = {Cell("x", recipe).digest for recipe in changed} | {cell.digest}
    assert len(digests) == 5
