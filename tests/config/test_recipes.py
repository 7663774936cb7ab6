"""The recipes are the paper's tables."""

from dataclasses import fields

import pytest
import torch

from simdistill.comparison.grid import GRIDS
from simdistill.config.recipes import RECIPES, Recipe
from simdistill.evaluation.extractors import load_extractor
from simdistill.method.distances import PseudoHuber
from simdistill.method.ema import EMA
from simdistill.method.noise import Clamped, DiscreteVP, LogNormal, Truncated
from simdistill.method.objectives import ScoreImplicitMatching
from simdistill.method.weightings import EDM, Uniform, VPScore
from simdistill.teachers.loading import SHIPPED, load_teacher


@pytest.mark.parametrize("column", ["cifar10-uncond", "cifar10-cond"])
def test_table_5(column):
    recipe = RECIPES[column]
    assert (recipe.generator_lr, recipe.online_lr) == (1e-5, 1e-5)
    assert (recipe.batch, recipe.betas, recipe.sigma_init) == (256, (0.0, 0.999), 2.5)
    assert (recipe.online_noise, recipe.online_weighting) == (LogNormal(-1.2, 1.2), EDM(0.5))
    assert recipe.generator_noise == Truncated(LogNormal(-3.5, 2.5), 0.002, 80.0)
    assert recipe.generator_weighting == Uniform()
    assert isinstance(recipe.objective, ScoreImplicitMatching)
    assert isinstance(recipe.objective.distance, PseudoHuber)
    assert (recipe.online_steps, recipe.gradient_accumulation, recipe.decay, recipe.warmup) == (1, 1, "none", 0)


@pytest.mark.parametrize(
    ("name", "batch", "lr", "half_life", "million_images"),
    [("ffhq64", 512, 1e-5, 5e5, 453), ("afhqv2-64", 512, 5e-6, 5e5, 372), ("imagenet64-cond", 8192, 4e-6, 2e6, 939)],
)
def test_64_pixels_are_sids_settings_with_sims_loss(name, batch, lr, half_life, million_images):
    recipe = RECIPES[name]
    assert (recipe.batch, recipe.generator_lr, recipe.online_lr) == (batch, lr, lr)
    assert recipe.ema == (EMA(half_life),)
    assert recipe.precision == "fp16"
    micro_batch = 16 if name == "imagenet64-cond" else 32
    assert batch // (4 * recipe.gradient_accumulation) == micro_batch  # a GPU, of SiD's four
    assert recipe.iterations * batch == pytest.approx(million_images * 1e6 / 4, rel=0.02)
    assert recipe.objective == ScoreImplicitMatching(PseudoHuber(0.06))
    assert recipe.objective.distance.c == pytest.approx(0.00054 * (3 * 64 * 64) ** 0.5, rel=0.01)
    assert RECIPES["cifar10-cond"].objective.distance.c == pytest.approx(0.00054 * (3 * 32 * 32) ** 0.5, rel=0.01)
    cifar = RECIPES["cifar10-cond"]
    changed = {"objective", "batch", "gradient_accumulation", "generator_lr", "online_lr", "ema", "iterations"}
    changed |= {"precision"}
    assert {f.name for f in fields(recipe) if getattr(recipe, f.name) != getattr(cifar, f.name)} <= changed


def test_the_shipped_teachers_have_recipes_that_fit_them():
    for name in SHIPPED:
        recipe, teacher = RECIPES[name], load_teacher(name)
        assert (recipe.teacher, teacher.name) == (name, name)
        assert recipe.online_weighting.sigma_data == pytest.approx(teacher.denoiser.scaling.sigma_data, abs=0.01)
        features = load_extractor(recipe.features or name).features(torch.zeros(2, *teacher.shape))
        assert features.shape == (2, 64 if name == "faces" else 32)
        teacher.check()


def test_b_3():
    recipe = RECIPES["pixart-512"]
    assert recipe.generator_noise == recipe.online_noise == Clamped(LogNormal(-2.0, 2.0), 0.01, 156.6155)
    assert recipe.generator_weighting == recipe.online_weighting == Uniform()
    assert (recipe.generator_lr, recipe.online_lr, recipe.betas) == (5e-6, 5e-6, (0.0, 0.999))
    assert (recipe.batch, recipe.gradient_accumulation, recipe.sigma_init, recipe.iterations) == (1024, 8, 2.5, 16_000)


def test_listing_1():
    recipe = RECIPES["listing-1"]
    assert recipe.generator_noise == recipe.online_noise == DiscreteVP(1000)
    assert recipe.online_weighting == VPScore(DiscreteVP(1000))
    assert (recipe.online_steps, recipe.batch) == (2, 2000)
    assert (recipe.generator_lr, recipe.online_lr, recipe.betas) == (1e-3, 1e-3, (0.0, 0.999))


def test_no_recipe_asks_a_teacher_outside_its_range():
    u = torch.linspace(1e-9, 1 - 1e-9, 10_001, dtype=torch.float64)
    varied = [
        settings["generator_noise"]
        for grid in GRIDS.values()
        for settings in grid.values()
        if "generator_noise" in settings
    ]
    assert all(torch.isfinite(noise.quantile(u)).all() for noise in varied)
    for name, recipe in RECIPES.items():
        drawn = recipe.generator_noise.quantile(u)
        assert torch.isfinite(drawn).all()
        if name.startswith(("cifar10", "ffhq", "afhq", "imagenet")):
            assert drawn.min() >= 0.002
            assert drawn.max() <= 80.0


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("batch", 0),
        ("gradient_accumulation", 3),
        ("iterations", 0),
        ("online_steps", 0),
        ("sigma_init", -2.5),
        ("teacher_guidance", 0.0),
        ("online_guidance", -2.0),
        ("generator_lr", 0.0),
        ("online_lr", -1.0),
        ("warmup", -1),
        ("ema", ()),
        ("checkpoint_minutes", -1.0),
        ("betas", (0.0, 1.0)),
    ],
)
def test_nonsense_is_refused_by_name(setting, value):
    with pytest.raises(ValueError, match=rf"{setting} = .*: must be"):
        Recipe(**{setting: value})
