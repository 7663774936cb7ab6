"""EMAs of weights: half-lives, ramp-up, and the power function against its integral."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simdistill.method.ema import EMA, PowerEMA


def weights_of_the_past(averaging, batch, steps):
    """What each step's parameters weigh in the EMA after the last one; the first entry is the start's."""
    weights = np.array([1.0])
    for step in range(1, steps + 1):
        decay = averaging.decay(batch, batch * step)
        weights = np.append(weights * decay, 1 - decay)
    return weights


@pytest.mark.parametrize("half_life", [100.0, 40.0])
def test_a_half_life_halves_the_memory(half_life):
    weights = weights_of_the_past(EMA(half_life, ramp_up=1e9), 10, 20)
    assert weights[0] == pytest.approx(0.5 ** (200 / half_life), rel=1e-12)


def test_ramp_up_and_none():
    # min(1e6, 0.05 * 100) = 5 images: two half-lives in a batch of 10
    assert EMA(1e6, 0.05).decay(10, 100) == pytest.approx(0.25)
    assert EMA(4.0, 0.05).decay(10, 1_000_000) == pytest.approx(0.5**2.5)
    assert EMA(0).decay(10, 10) == 0.0


def edm_beta(batch, half_life, ramp_up, images_before):
    """The decay in training_loop.py of Karras et al. (2022), in images: ema_beta."""
    return 0.5 ** (batch / max(min(half_life, images_before * ramp_up), 1e-8))


@pytest.mark.parametrize(("half_life", "ramp_up", "batch"), [(500_000, 0.05, 512), (2000, 0.05, 64), (700, 1.5, 256)])
def test_edms_ramp_up_one_step_earlier(half_life, ramp_up, batch):
    """EDM counts the images before a step's batch, we those after it; the same from where the ramp ends."""
    ema = EMA(half_life, ramp_up)
    for step in range(1, 1500):
        ours = ema.decay(batch, batch * step)
        assert ours == pytest.approx(edm_beta(batch, half_life, ramp_up, batch * step), rel=1e-12)
        if ramp_up * batch * (step - 1) >= half_life:
            assert ours == pytest.approx(edm_beta(batch, half_life, ramp_up, batch * (step - 1)), rel=1e-12)
    assert edm_beta(batch, half_life, ramp_up, 0) == 0  # EDM's first step forgets the start
    assert ema.decay(batch, batch) == pytest.approx(0.5 ** max(1 / ramp_up, batch / half_life), rel=1e-12)


@pytest.mark.parametrize("std", [0.05, 0.1, 0.25])
def test_a_power_function_ema_has_the_weights_of_its_name(std):
    """∝ n^exponent, none on the start, their times' standard deviation `std` of the training so far."""
    ema, steps = PowerEMA(std), 4000
    weights = weights_of_the_past(ema, 8, steps)
    assert weights[0] == 0
    assert weights.sum() == pytest.approx(1)
    times = np.arange(steps + 1) / steps
    mean = (weights * times).sum()
    assert math.sqrt((weights * (times - mean) ** 2).sum()) == pytest.approx(std, rel=2e-3)
    middle, late = steps // 2, steps - 1
    assert math.log(weights[late] / weights[middle]) / math.log(late / middle) == pytest.approx(ema.exponent, rel=1e-2)


@given(st.floats(0.01, 0.28))
def test_the_exponent_solves_its_equation(std):
    e = PowerEMA(std).exponent
    assert (e + 1) / ((e + 2) ** 2 * (e + 3)) == pytest.approx(std**2, rel=1e-6)


def test_known_exponents():
    # Karras et al. (2024), section 3.1: gamma = 6.94 at 10 %, 16.97 at 5 %
    assert PowerEMA(0.10).exponent == pytest.approx(6.94, abs=0.005)
    assert PowerEMA(0.05).exponent == pytest.approx(16.97, abs=0.005)


def test_a_ramp_is_a_power_function():
    """As the docstring says: until the half-life is reached, of exponent ln 2 / ramp_up - 1."""
    e = math.log(2) / 0.05 - 1
    decay = EMA(1e12, 0.05).decay(1, 10_000)
    assert 1 - decay == pytest.approx((e + 1) / 10_000, rel=1e-3)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (EMA, (-1.0,), "half_life = -1.0"),
        (EMA, (math.inf,), "half_life = inf"),
        (EMA, (1.0, 0.0), "ramp_up = 0.0: must be positive"),
        (PowerEMA, (0.0,), "std = 0.0"),
        (PowerEMA, (0.3,), "std = 0.3"),
    ],
)
def test_nonsense_is_refused(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        kind(*arguments)
