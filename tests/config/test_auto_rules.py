"""The recipe `auto`: what has the data's unit scales with the data, and nothing else does."""

import math
from dataclasses import replace

import pytest

from simdistill.config.auto import Reading, choices, chosen
from simdistill.config.recipes import RECIPES
from simdistill.method.noise import LogNormal, Truncated

DIGITS = Reading((1, 8, 8), 0.002, 80.0, 0.524, 1.71, 0.1, 332_032, 6.6e5)
GAUSSIANS = Reading((2,), 0.002, 80.0, 1.417, 1.461, 0.043, 103_746, 2e5)
CLOTHES = Reading((1, 32, 32), 0.002, 80.0, 0.513, 9.08, 0.023, 750_820, 1.52e8)
CIFAR = Reading((3, 32, 32), 0.002, 80.0, 0.5, 8.0, 0.03, 55_733_891, 4.2e10, gpu=True)
EACH = pytest.mark.parametrize(
    "read", [DIGITS, GAUSSIANS, CLOTHES, CIFAR], ids=["digits", "points", "clothes", "cifar"]
)


def times(read, k):
    """The reading of the same teacher for data times k."""
    names = ("sigma_min", "sigma_max", "spread", "structure", "detail")
    return replace(read, **{name: k * getattr(read, name) for name in names})


@EACH
@pytest.mark.parametrize("k", [0.2, 40.0, 1000.0, 1e-4])
def test_what_has_a_unit_scales_with_the_data_and_nothing_else_does(read, k):
    one, other = chosen(choices(read)), chosen(choices(times(read, k)))
    assert other.sigma_init == pytest.approx(k * one.sigma_init, rel=1e-3)
    assert other.objective.distance.c == pytest.approx(k * one.objective.distance.c, rel=1e-3)
    assert other.online_weighting.sigma_data == pytest.approx(k * one.online_weighting.sigma_data, rel=1e-3)
    for name in ("generator_noise", "online_noise"):
        noise, scaled = getattr(one, name), getattr(other, name)
        assert scaled.distribution.mean == pytest.approx(noise.distribution.mean + math.log(k), abs=6e-3)
        assert scaled.distribution.std == pytest.approx(noise.distribution.std, rel=1e-3)
        assert (scaled.low, scaled.high) == pytest.approx((k * noise.low, k * noise.high), rel=1e-12)
    united = {"sigma_init", "objective", "online_weighting", "generator_noise", "online_noise"}
    plain = replace(other, **{name: getattr(one, name) for name in united})
    assert plain == one


@EACH
def test_no_level_is_outside_the_teachers_range(read):
    narrow = replace(read, sigma_min=0.03, sigma_max=14.6)
    recipe = chosen(choices(narrow))
    for noise in (recipe.generator_noise, recipe.online_noise):
        assert isinstance(noise, Truncated)
        assert (noise.low, noise.high) == (0.03, 14.6)
    assert recipe.sigma_init <= 14.6


def test_the_rule_is_near_what_trials_found():
    """The medians of docs/digits.md, gallery.md; c from docs/gallery.md and of images; the paper's sigma_init."""
    digits, points, cifar = (chosen(choices(read)) for read in (DIGITS, GAUSSIANS, CIFAR))
    assert digits.generator_noise.distribution.mean == pytest.approx(RECIPES["digits"].generator_noise.mean, abs=0.1)
    assert points.generator_noise.distribution.mean == pytest.approx(RECIPES["densities"].generator_noise.mean, abs=0.4)
    assert points.objective.distance.c == pytest.approx(1.0, rel=0.01)
    assert cifar.objective.distance.c == pytest.approx(0.03, rel=0.01)
    assert cifar.sigma_init == 2.5
    assert points.sigma_init == pytest.approx(2.5, rel=0.02)
    assert (digits.batch, points.batch, cifar.batch) == (64, 256, 256)
    assert points.generator_lr == pytest.approx(1e-3, rel=0.01)


def test_the_length_follows_from_the_work():
    digits, clothes, cifar = (chosen(choices(read)) for read in (DIGITS, CLOTHES, CIFAR))
    assert digits.iterations == 8000
    work = 11 * clothes.batch * CLOTHES.flops * clothes.iterations
    assert work == pytest.approx(1800 * 3e10, rel=0.1)  # half an hour of a core
    assert 5000 <= cifar.iterations <= 50_000
    huge = chosen(choices(replace(CLOTHES, flops=1e13)))
    assert (huge.iterations, huge.batch) == (1000, 32)


def test_what_is_given_stays_and_the_rest_follows():
    made = {choice.name: choice for choice in choices(DIGITS, batch=100, iterations=30_000)}
    assert (made["batch"].value, made["iterations"].value, made["warmup"].value) == (100, 30_000, 300)
    assert all(choice.why for choice in made.values())


def test_large_networks_on_gpus_compute_in_bf16():
    assert chosen(choices(replace(CIFAR, parameters=600_000_000))).precision == "bf16"
    assert chosen(choices(replace(CIFAR, parameters=600_000_000, gpu=False))).precision == "fp32"
    assert chosen(choices(CIFAR)).precision == "fp32"


@pytest.mark.parametrize("spread", [0.0, math.nan, math.inf])
def test_samples_without_a_spread_are_refused(spread):
    with pytest.raises(ValueError, match=r"spread of the teacher's samples = .*positive"):
        replace(DIGITS, spread=spread)


def test_a_range_that_misses_the_data_is_refused_by_name():
    with pytest.raises(ValueError, match=r"generator_noise = LogNormal.*range 0.002 … 80"):
        choices(replace(times(DIGITS, 1e30), sigma_min=0.002, sigma_max=80.0))


def test_a_rounded_distribution_is_one():
    assert chosen(choices(DIGITS)).online_noise.distribution == LogNormal(
        round(chosen(choices(DIGITS)).online_noise.distribution.mean, 4), 1.2
    )
