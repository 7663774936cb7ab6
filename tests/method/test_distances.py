import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import special

from simdistill.method.distances import DISTANCES, L1, Exponential, Huber, PoweredL2, PseudoHuber, SquaredL2
from simdistill.method.shapes import like

many = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.filter_too_much],
)
rows = pytest.mark.parametrize("row", DISTANCES, ids=lambda row: row.__name__)
SHAPES = [(1,), (7,), (1, 1, 1), (3, 4, 4)]
# Table 4 of the paper by hand, corrected: every d(y) for a vector y and the parameters of its row.
BY_HAND = {
    SquaredL2: lambda y, p: np.sum(y**2),
    PoweredL2: lambda y, p: np.linalg.norm(y) ** p.alpha,
    Exponential: lambda y, p: math.exp(min(p.beta * np.linalg.norm(y) ** p.alpha, 100)) - 1,
    L1: lambda y, p: np.sum(np.abs(y)),
    Huber: lambda y, p: special.huber(p.delta, y).sum(),
    PseudoHuber: lambda y, p: math.sqrt(np.sum(y**2) + p.c**2) - p.c,
}


def instances(row):
    """Distances of a row with arbitrary legal parameters."""

    def build(parameters):
        try:
            return row(**parameters)
        except ValueError:
            return None

    parameters = {field.name: st.floats(0.02, 3) for field in fields(row)}
    return st.fixed_dictionaries(parameters).map(build).filter(lambda distance: distance is not None)


def differences(data, largest=1e3):
    """A batch of y of a drawn shape; every sample has a scale of its own, and the second is 0."""
    shape, seed = data.draw(st.sampled_from(SHAPES)), data.draw(st.integers(0, 2**32))
    exponents = data.draw(st.lists(st.floats(-6, math.log10(largest)), min_size=3, max_size=3))
    directions = torch.randn(4, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    scales = [10 ** exponents[0], 0.0, 10 ** exponents[1], 10 ** exponents[2]]
    return torch.stack([scale * direction for scale, direction in zip(scales, directions, strict=True)])


# ---- every row of the table


@rows
@given(data=st.data())
@many
def test_the_gradient_is_the_derivative_of_the_value(row, data):
    distance, y = data.draw(instances(row)), differences(data)
    (derivative,) = torch.autograd.grad(distance.value(y.requires_grad_()).sum(), y)
    torch.testing.assert_close(distance.gradient(y.detach()), derivative, rtol=1e-11, atol=0)


@rows
@given(data=st.data())
@many
def test_the_gradient_can_be_differentiated_once_more_as_the_generators_loss_does(row, data):
    """In any direction v the derivative of d'(y)·v is the second derivative of d, and it is finite at y = 0."""
    distance, y = data.draw(instances(row)), differences(data)
    v = y.roll(1, 0) + 1
    (hessian_v,) = torch.autograd.grad((distance.gradient(y.requires_grad_()) * v).sum(), y)
    assert hessian_v.isfinite().all()
    away = [0, 2, 3]
    (slope,) = torch.autograd.grad(distance.value(y).sum(), y, create_graph=True)
    (expected,) = torch.autograd.grad((slope * v)[away].sum(), y, allow_unused=True, materialize_grads=True)
    length = {name: a.detach().flatten(1).norm(dim=1) for name, a in (("d'", slope), ("v", v), ("y", y))}
    size = like(length["d'"] * length["v"] / length["y"], y)[away]
    torch.testing.assert_close(hessian_v[away] / size, expected[away] / size, rtol=1e-9, atol=1e-12)


@rows
@given(data=st.data())
@many
def test_distances_are_positive_but_at_zero_and_accurate_in_float32_at_any_scale(row, data):
    distance, y = data.draw(instances(row)), differences(data).float()
    value, gradient = distance.value(y), distance.gradient(y)
    assert value.dtype == gradient.dtype == torch.float32
    assert (value > 0).tolist() == [True, False, True, True]
    assert gradient[1].count_nonzero() == 0
    torch.testing.assert_close(value.double(), distance.value(y.double()), rtol=1e-4, atol=0)
    torch.testing.assert_close(gradient.double(), distance.gradient(y.double()), rtol=1e-4, atol=0)


@rows
@given(data=st.data())
@many
def test_values_are_those_of_the_paper_written_out(row, data):
    distance, y = data.draw(instances(row)), differences(data, largest=2.0)
    expected = [BY_HAND[row](sample.flatten().numpy(), distance) for sample in y]
    value = distance.value(y)
    assert value.shape == (4,)
    if row is not Exponential:
        np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-14)
    else:  # beyond its guard, which has a test of its own below, the formula grows faster
        np.testing.assert_allclose(value.clamp(max=1e13), np.minimum(expected, 1e13), rtol=1e-9, atol=1e-14)


@rows
@given(data=st.data())
@many
def test_a_distance_grows_along_every_ray_and_sees_each_sample_alone(row, data):
    distance, y = data.draw(instances(row)), differences(data)
    assert (distance.value(1.01 * y) >= distance.value(y)).all()
    one_by_one = torch.cat([distance.gradient(sample[None]) for sample in y])
    torch.testing.assert_close(distance.gradient(y), one_by_one, rtol=1e-14, atol=0)


# ---- what single rows promise

Y = torch.tensor([[3.0, -4.0], [0.0, 0.0], [-0.06, 0.08]], dtype=torch.float64)  # of length 5, 0 and 0.1


@pytest.mark.parametrize(
    ("distance", "values", "gradients"),
    [
        (SquaredL2(), [25, 0, 0.01], [[6, -8], [0, 0], [-0.12, 0.16]]),
        (PoweredL2(alpha=1.0), [5, 0, 0.1], [[0.6, -0.8], [0, 0], [-0.6, 0.8]]),
        (PoweredL2(alpha=3.0), [125, 0, 0.001], [[45, -60], [0, 0], [-0.018, 0.024]]),
        (
            Exponential(beta=2.0, alpha=1.0),
            [math.e**10 - 1, 0, math.e**0.2 - 1],
            [[1.2 * math.e**10, -1.6 * math.e**10], [0, 0], [-1.2 * math.e**0.2, 1.6 * math.e**0.2]],
        ),
        (L1(), [7, 0, 0.14], [[1, -1], [0, 0], [-1, 1]]),
        (Huber(delta=0.07), [0.07 * (7 - 0.07), 0, 0.0018 + 0.07 * 0.045], [[0.07, -0.07], [0, 0], [-0.06, 0.07]]),
        (
            PseudoHuber(c=12.0),
            [1, 0, math.sqrt(144.01) - 12],
            [[3 / 13, -4 / 13], [0, 0], [-0.06 / math.sqrt(144.01), 0.08 / math.sqrt(144.01)]],
        ),
    ],
    ids=repr,
)
def test_hand_computed_values(distance, values, gradients):
    torch.testing.assert_close(distance.value(Y), torch.tensor(values, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(distance.gradient(Y), torch.tensor(gradients, dtype=torch.float64))


@pytest.mark.parametrize(
    ("distance", "printed"),
    [
        (Exponential(beta=0.5, alpha=2.0), 2 * math.exp(0.5 * 25)),  # Table 4 omits the factor beta
        (PseudoHuber(c=0.03), 2 / math.sqrt(25 + 0.03**2)),  # Table 4 has a factor 2
    ],
    ids=["exponential", "pseudo-huber"],
)
def test_the_printed_gradients_are_off_by_the_documented_factor(distance, printed):
    """Half of the printed coefficient of y is the slope of d along y, by central differences of d itself."""
    y, h = Y[:1], 1e-5
    slope = (distance.value(y * (1 + h)) - distance.value(y * (1 - h))) / (2 * h)
    torch.testing.assert_close(slope, torch.tensor([printed / 2 * 25], dtype=torch.float64), rtol=1e-7, atol=0)
    torch.testing.assert_close(distance.gradient(y), printed / 2 * y)


@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.0])
def test_the_exponential_goes_on_as_its_tangent_in_the_exponent(alpha):
    distance = Exponential(beta=0.5, alpha=alpha)
    exponent = np.array([29.0, 30 - 1e-9, 30 + 1e-9, 31.0, 1e3, 1e6])
    length = (exponent / 0.5) ** (1 / alpha)
    expected = np.where(exponent <= 30, np.expm1(np.minimum(exponent, 30)), math.exp(30) * (exponent - 29) - 1)
    y = torch.tensor(length)[:, None]
    np.testing.assert_allclose(distance.value(y), expected, rtol=1e-10)
    # one slope on either side of the seam: the derivative of the exponent, e^30 times
    seam = distance.gradient(y).numpy()[1:3, 0] / (alpha * exponent[1:3] / length[1:3])
    np.testing.assert_allclose(seam, math.exp(30), rtol=1e-8)
    assert distance.gradient(torch.full((1, 9), 1e6)).isfinite().all()
    assert distance.value(torch.full((1, 9), 1e6)).isfinite().all()


def test_pseudo_huber_keeps_float32s_digits_far_below_c():
    y = torch.full((1, 4), 1e-7)  # √(‖y‖² + c²) - c in float32 would be 0
    assert PseudoHuber(c=0.03).value(y).item() == pytest.approx(4e-14 / 0.06, rel=1e-6)


def test_pseudo_huber_has_half_its_full_slope_at_a_length_of_c_over_root_three_and_tends_to_powered_l2():
    assert PseudoHuber(c=0.3).gradient(torch.tensor([[0.3 / math.sqrt(3)]])).item() == pytest.approx(0.5)
    nearly, limit = PseudoHuber(c=1e-9), PoweredL2(alpha=1.0)
    torch.testing.assert_close(nearly.gradient(Y), limit.gradient(Y))
    torch.testing.assert_close(nearly.value(Y), limit.value(Y), rtol=0, atol=1e-8)


def test_huber_tends_to_half_the_square_for_a_large_delta_and_to_l1_for_a_small_one():
    torch.testing.assert_close(Huber(delta=10.0).value(Y), SquaredL2().value(Y) / 2)
    torch.testing.assert_close(Huber(delta=1e-9).gradient(Y) / 1e-9, L1().gradient(Y))


@pytest.mark.parametrize(
    ("row", "parameters", "name"),
    [
        (PoweredL2, {"alpha": 0.99}, "alpha"),
        (Exponential, {"beta": 0.0}, "beta"),
        (Exponential, {"alpha": 0.5}, "alpha"),
        (Huber, {"delta": 0.0}, "delta"),
        (PseudoHuber, {"c": 0.0}, "c"),
        (PseudoHuber, {"c": math.nan}, "c"),
    ],
)
def test_a_parameter_out_of_range_is_named_with_its_value_and_the_remedy(row, parameters, name):
    with pytest.raises(ValueError, match=rf"^{name} = {parameters[name]!r}: must be (positive|at least 1)"):
        row(**parameters)
