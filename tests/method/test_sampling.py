import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats

from simdistill.method.denoisers import GaussianMixture
from simdistill.method.samplers import heun, karras_steps, noise_from_seeds

F64 = torch.float64

# ---- starting noise


def test_a_row_of_noise_depends_on_its_seed_alone():
    rows = noise_from_seeds([5, 0, 123456789], (2, 3))
    assert rows.shape == (3, 2, 3)
    assert rows.dtype == torch.float32
    for i, seed in enumerate([5, 0, 123456789]):
        torch.testing.assert_close(rows[i : i + 1], noise_from_seeds([seed], (2, 3)), rtol=0, atol=0)
    torch.testing.assert_close(noise_from_seeds(range(10), (64,))[7], noise_from_seeds([7], (64,))[0], rtol=0, atol=0)


def test_drawing_noise_leaves_the_global_generator_alone_and_does_not_follow_it():
    torch.manual_seed(1)
    first, state = noise_from_seeds([3], (4,)), torch.get_rng_state()
    torch.manual_seed(2)
    torch.testing.assert_close(noise_from_seeds([3], (4,)), first, rtol=0, atol=0)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("features", [2, 64])  # torch draws fewer than 16 numbers by another route
def test_noise_of_consecutive_seeds_is_standard_normal_and_uncorrelated(features):
    n = 4096
    z = noise_from_seeds(range(n), (features,)).double().numpy()
    total = n * features
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    assert abs(z.mean()) < 4 / math.sqrt(total)
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / total)
    for lag in (1, 2, 16):  # between seeds s and s + lag, and between features of one seed
        assert abs((z[:-lag] * z[lag:]).mean()) < 4 / math.sqrt(total)
    assert abs((z[:, :-1] * z[:, 1:]).mean()) < 4 / math.sqrt(n * (features - 1))
    assert abs((z[:-1] ** 2 * z[1:] ** 2).mean() - 1) < 4 * math.sqrt(8 / total)
    assert len(np.unique(z[:, 0])) > 0.999 * n  # float32 rounds some together


# ---- the sampler's levels


def test_the_levels_are_edms():
    levels = karras_steps(18, 0.002, 80.0)
    i = np.arange(18)
    expected = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(levels, [*expected, 0], rtol=1e-12)
    assert levels[[0, 17, 18]].tolist() == [pytest.approx(80), pytest.approx(0.002), 0]
    np.testing.assert_allclose(karras_steps(3, 1.0, 9.0, rho=2.0), [9, 4, 1, 0], rtol=1e-12)


# ---- Heun

MEAN, STD = 0.7, 0.4


class Counting:
    """A Gaussian's exact denoiser that counts its evaluations and notes what it was asked."""

    def __init__(self, mean=MEAN, std=STD):
        mean, variance = torch.tensor([[mean]], dtype=F64), torch.tensor([[[std**2]]], dtype=F64)
        self.exact, self.levels, self.conditions = GaussianMixture(mean, variance), [], []

    def __call__(self, x_t, sigma, condition=None):
        assert sigma.shape == (len(x_t),)
        self.levels.append(sigma[0].item())
        self.conditions.append(condition)
        return self.exact(x_t, sigma)


def flow(z, sigma_max):
    """The exact end of the probability flow: x(σ) = m + (x(σ_max) - m) √((s² + σ²)/(s² + σ_max²)) at σ = 0."""
    return MEAN + (sigma_max * z - MEAN) * STD / math.sqrt(STD**2 + sigma_max**2)


def start(rng, n=9):
    return torch.randn(n, 1, generator=rng, dtype=F64)


def test_heun_follows_the_probability_flow_of_a_gaussian_to_second_order(rng):
    z, sigma_max = start(rng), 10.0
    errors = [
        (heun(Counting(), z, steps=steps, sigma_min=1e-4, sigma_max=sigma_max) - flow(z, sigma_max)).abs().max().item()
        for steps in (25, 50, 100, 200)
    ]
    ratios = [coarse / fine for coarse, fine in pairwise(errors)]
    assert ratios == pytest.approx([4, 4, 4], rel=0.15)  # Euler's would be 2
    assert errors[-1] < 2e-3


@pytest.mark.parametrize(("steps", "wide"), [(18, 0.06), (40, 0.011), (100, 0.002)])
def test_the_law_of_the_samples_is_the_datas_within_the_steps_error(steps, wide):
    """On a Gaussian each sample is mean + std z; EDM's 18 steps make it 6 % too wide."""
    z = torch.tensor([[0.0], [1.0], [-2.0]], dtype=F64)
    mean, above, below = heun(Counting(), z, steps=steps)[:, 0].tolist()
    assert mean == pytest.approx(MEAN, abs=0.005)
    assert above - mean == pytest.approx(STD, rel=wide)
    assert mean - below == pytest.approx(2 * (above - mean), rel=1e-9)


@pytest.mark.parametrize("steps", [2, 5, 18])
def test_heun_asks_two_steps_minus_one_times_at_the_levels_of_edms_algorithm(steps, rng):
    denoiser, labels = Counting(), torch.arange(9)
    heun(denoiser, start(rng), labels, steps=steps)
    levels = karras_steps(steps, 0.002, 80.0)
    expected = [levels[0]]
    for level in levels[1:-1]:  # once as a step's end, once as the next one's beginning
        expected += [level, level]
    assert len(denoiser.levels) == 2 * steps - 1
    np.testing.assert_allclose(denoiser.levels, expected, rtol=1e-12)
    assert all(condition is labels for condition in denoiser.conditions)


def test_two_steps_written_out(rng):
    z, top, low, exact = start(rng), 4.0, 0.5, Counting().exact

    def slope(x, sigma):
        return (x - exact(x, torch.full((9,), sigma, dtype=F64))) / sigma

    x = top * z
    predicted = x + (low - top) * slope(x, top)
    corrected = x + (low - top) * (slope(x, top) + slope(predicted, low)) / 2
    expected = corrected - low * slope(corrected, low)
    torch.testing.assert_close(heun(Counting(), z, steps=2, sigma_min=low, sigma_max=top), expected)


def test_a_sample_does_not_depend_on_its_batch(rng):
    z = torch.randn(5, 2, generator=rng)
    mixture = GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), 0.01 * torch.eye(2).expand(2, 2, 2))
    together = heun(mixture, z)
    one_by_one = torch.cat([heun(mixture, row[None]) for row in z])
    torch.testing.assert_close(together, one_by_one, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(heun(mixture, z.flip(0)), together.flip(0), rtol=1e-5, atol=1e-5)


def test_the_sampler_keeps_no_graph(rng):
    scale = torch.ones((), dtype=F64, requires_grad=True)
    x_0 = heun(lambda x_t, sigma, condition: scale * x_t / 2, start(rng), steps=2)
    assert not x_0.requires_grad


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 1}, "steps = 1: must be at least 2"),
        ({"sigma_min": 0.0}, "sigma_min = 0.0: must be above 0 and below sigma_max = 80.0"),
        ({"sigma_min": 2.0, "sigma_max": 1.0}, "sigma_min = 2.0: must be above 0 and below sigma_max = 1.0"),
    ],
)
def test_heun_refuses_what_cannot_be(settings, message, rng):
    with pytest.raises(ValueError, match=f"^{message}"):
        heun(Counting(), start(rng), **settings)


def test_heun_refuses_a_denoiser_whose_output_has_another_shape(rng):
    with pytest.raises(ValueError, match=r"denoiser output = \[9\]: must be of its input's shape, \[9, 1\]"):
        heun(lambda x_t, sigma, condition: x_t[:, 0], start(rng))
