"""What counts as trouble, and what is only noise."""

import math
import random

import pytest

from simdistill.training.divergence import trouble


def course(n, level=1.0, spread=0.1, name="online_gradient_norm", seed=0):
    noise = random.Random(seed)
    return [{"iteration": 50 * k, name: level * math.exp(noise.gauss(0, spread))} for k in range(n)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["loss", "generator_loss", "online_gradient_norm"])
def test_numbers_that_are_not_finite(name, value):
    assert trouble({"loss": 1.0, name: value}, []) == f"{name} is {value}"


@pytest.mark.parametrize("name", ["online_gradient_norm", "generator_gradient_norm", "y_norm"])
def test_an_explosion(name):
    before = course(40, name=name)
    assert trouble({name: 25.0}, before) is None
    assert trouble({name: 40.0}, before) == f"{name} is 40, after a median of {median_of(before, name):.3g}"


def median_of(records, name):
    logs = sorted(math.log(r[name]) for r in records)
    return math.exp((logs[19] + logs[20]) / 2)


def test_losses_may_jump():
    assert trouble({"loss": 1e6}, course(40, name="loss")) is None


def test_noisy_courses_are_given_room():
    before = course(50, spread=2.0)
    assert trouble({"online_gradient_norm": 100.0}, before) is None
    assert trouble({"online_gradient_norm": 1e9}, before) is not None


def test_a_few_wild_values_do_not_move_the_bound():
    before = course(40)
    for k in (5, 17, 33):
        before[k]["online_gradient_norm"] = 1e12
    assert trouble({"online_gradient_norm": 40.0}, before) is not None


def test_growth_over_hundreds_of_iterations_is_none():
    """‖y‖ starts at zero, since all three networks do alike, and grows by decades before it falls."""
    before = []
    for k in range(60):
        metrics = {"y_norm": 1e-4 * 1.3**k}
        assert trouble(metrics, before) is None, k
        before.append(metrics)


def test_few_values_say_nothing():
    assert trouble({"online_gradient_norm": 1e9}, course(9)) is None
    assert trouble({"online_gradient_norm": 1e9}, course(10)) is not None


def test_records_of_other_things_between_are_passed_over():
    before = [*course(40), {"iteration": 2000, "quality": {}}, {"iteration": 2000, "rollback": "loss is nan"}]
    assert trouble({"online_gradient_norm": 1.0, "levels": {"y_norm": {"0.1": 3.0}}}, before) is None
    assert trouble({"online_gradient_norm": 99.0}, before) is not None


def test_records_of_other_things_do_not_push_values_out():
    """One process alone sees the measured quality: all must judge alike."""
    rising = [{"online_gradient_norm": 1.02**k} for k in range(80)]
    between = [r for metrics in rising for r in (metrics, {"quality": {}})]
    for value in (60.0, 80.0, 90.0, 100.0, 120.0):
        assert trouble({"online_gradient_norm": value}, rising) == trouble({"online_gradient_norm": value}, between)
