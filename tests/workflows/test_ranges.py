"""Noise distributions stay inside the teacher's range, and shipped recipes as they are."""

from dataclasses import replace

import pytest
import torch

from simdistill.config.recipes import RECIPES, Recipe
from simdistill.method.noise import Clamped, Karras, LogNormal, Truncated, kept_inside, share_outside
from simdistill.teachers.loading import load_teacher
from simdistill.workflows.planning import teacher_of_plan
from simdistill.workflows.ranges import kept_in_range, shares_outside

STABLE_DIFFUSION = replace(load_teacher("digits"), sigma_min=0.0292, sigma_max=14.6)
SHIPPED = ["digits", "fashion-mnist", "faces", "faces-unguided", "cifar10-uncond", "cifar10-cond", "ffhq64"]


@pytest.mark.parametrize(
    ("distribution", "low", "high", "share"),
    [
        (LogNormal(0.0, 1.0), 1.0, 1e9, 0.5),
        (LogNormal(0.0, 1.0), 1e-9, 1.0, 0.5),
        (LogNormal(-3.5, 2.5), 0.002, 1e9, 0.139),  # of which the paper does not speak
        (Truncated(LogNormal(0.0, 1.0), 0.5, 2.0), 0.5, 2.0, 0.0),
        (Clamped(LogNormal(-2.0, 2.0), 0.01, 156.6155), 0.0100008, 156.6157, 0.0),  # ends that differ by rounding
        (Karras(), 0.002, 80.0, 0.0),
    ],
)
def test_the_share_outside(distribution, low, high, share):
    assert share_outside(distribution, low, high) == pytest.approx(share, abs=1e-3)


def test_a_truncation_is_narrowed_and_equals_one_of_the_whole():
    u = torch.linspace(0.001, 0.999, 99, dtype=torch.float64)
    twice = kept_inside(Truncated(LogNormal(-1.0, 2.0), 0.002, 80.0), 0.03, 200.0)
    assert twice == Truncated(LogNormal(-1.0, 2.0), 0.03, 80.0)
    assert torch.equal(twice.quantile(u), kept_inside(LogNormal(-1.0, 2.0), 0.03, 80.0).quantile(u))
    with pytest.raises(ValueError, match="levels up to"):
        kept_inside(Truncated(LogNormal(0.0, 1.0), 0.5, 2.0), 3.0, 4.0)


@pytest.mark.parametrize("name", [*SHIPPED, "afhqv2-64", "imagenet64-cond", "pixart-512", "listing-1", "densities"])
def test_shipped_recipes_are_unchanged_with_their_own_teachers(name, capsys):
    recipe = RECIPES[name]
    assert kept_in_range(recipe, teacher_of_plan(name, recipe)) is recipe
    assert capsys.readouterr().err == ""


def test_levels_outside_are_cut_off_and_said(capsys):
    recipe = RECIPES["cifar10-uncond"]
    share = shares_outside(recipe, STABLE_DIFFUSION)["generator_noise"]
    assert share == pytest.approx(0.41, abs=0.015)
    kept = kept_in_range(recipe, STABLE_DIFFUSION)
    assert kept.generator_noise == Truncated(LogNormal(-3.5, 2.5), 0.0292, 14.6)
    assert kept.online_noise == Truncated(LogNormal(-1.2, 1.2), 0.0292, 14.6)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert f"--generator-noise: {share:.1%}" in told[0]
    assert "0.0292 … 14.6" in told[0]
    assert "--outside-range allow" in told[0]
    assert kept_in_range(kept, STABLE_DIFFUSION) is kept


def test_they_are_drawn_if_allowed(capsys):
    recipe = replace(RECIPES["cifar10-uncond"], outside_range="allow")
    assert kept_in_range(recipe, STABLE_DIFFUSION) is recipe
    assert "nevertheless" in capsys.readouterr().err
    assert kept_in_range(recipe, STABLE_DIFFUSION, shown=False) is recipe
    assert capsys.readouterr().err == ""


def test_exact_densities_have_no_range():
    density = load_teacher("rings")
    assert set(shares_outside(Recipe(generator_noise=LogNormal(9.0, 0.1)), density).values()) == {0.0}


def test_a_distribution_that_misses_the_range_is_refused_by_name():
    with pytest.raises(ValueError, match=r"--generator-noise LogNormal.*0.0292 … 14.6"):
        kept_in_range(Recipe(generator_noise=LogNormal(50.0, 0.1)), STABLE_DIFFUSION)
