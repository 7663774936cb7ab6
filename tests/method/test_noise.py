import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from simdistill.method.noise import DISTRIBUTIONS, Clamped, DiscreteVP, Karras, LogNormal, Truncated, diffuse, sample

EDM_TIMES, SIM_TIMES = LogNormal(-1.2, 1.2), LogNormal(-3.5, 2.5)
EXAMPLES = [
    EDM_TIMES,
    SIM_TIMES,
    Karras(),
    Karras(sigma_min=0.01, sigma_max=10.0, rho=3.0, levels=12, highest=11),
    DiscreteVP(),
    DiscreteVP(steps=10, beta_start=0.01, beta_end=0.5),
    Truncated(SIM_TIMES, 0.002, 80.0),
    Truncated(Karras(), 0.1, 1.0),
    Truncated(DiscreteVP(steps=10, beta_start=0.01, beta_end=0.5), 0.3, 1.5),
    Clamped(LogNormal(-2.0, 2.0), 0.01, 156.6155),
    Clamped(Truncated(SIM_TIMES, 0.002, 80.0), 0.01, 10.0),
    Truncated(Clamped(SIM_TIMES, 0.01, 10.0), 0.005, 10.0),
    Truncated(Truncated(EDM_TIMES, 0.01, 10.0), 0.1, 20.0),
]
each = pytest.mark.parametrize("distribution", EXAMPLES, ids=repr)
many = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def grid(n=4001):
    """The midpoints of n equal parts of (0, 1)."""
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


def test_every_distribution_of_the_table_is_tested_here():
    assert {type(distribution) for distribution in EXAMPLES} == set(DISTRIBUTIONS)


# ---- quantile, distribution function and sample, of every distribution


@each
@given(u=st.floats(1e-12, 1 - 1e-12))
@many
def test_the_quantile_is_the_smallest_level_that_the_distribution_function_lifts_to_u(distribution, u):
    level = distribution.quantile(f64(u))
    below, at = distribution.cdf(torch.cat([level * (1 - 1e-9), level])).tolist()
    assert at >= u - 1e-9
    assert below <= u + 1e-9


@each
def test_levels_and_probabilities_rise_together_and_return(distribution):
    u = grid()
    levels = distribution.quantile(u)
    assert (levels.diff() >= 0).all()
    torch.testing.assert_close(distribution.quantile(distribution.cdf(levels)), levels, rtol=1e-9, atol=0)
    sigma = torch.logspace(-6, 4, 5000, dtype=torch.float64)
    probability = distribution.cdf(sigma)
    assert (probability.diff() >= 0).all()
    assert probability[0] < 1e-3  # SIM's times have a heavy lower tail
    assert probability[-1] > 1 - 1e-6


@each
def test_samples_follow_the_distribution_and_repeat(distribution, rng):
    n = 20_000
    levels = sample(distribution, n, rng)
    assert levels.dtype == torch.float32
    assert levels.shape == (n,)
    torch.testing.assert_close(sample(distribution, n, torch.Generator().manual_seed(0)), levels, rtol=0, atol=0)
    assert (sample(distribution, n, rng) != levels).double().mean() > 0.5  # the stream goes on
    distinct, counts = levels.double().unique(return_counts=True)
    # Kolmogorov and Smirnov, over the jumps; a level was rounded to float32 by up to 6e-8 of itself
    gap = (counts.cumsum(0) / n - distribution.cdf(distinct * (1 + 1e-7))).abs().max()
    assert gap < stats.kstwobign.isf(0.01) / math.sqrt(n)


@each
@pytest.mark.parametrize("u", [0.0, 1 - 2**-53])
def test_the_extreme_uniform_numbers_give_levels_above_zero_and_finite(distribution, u, monkeypatch, rng):
    monkeypatch.setattr(torch, "rand", lambda n, **_: torch.full((n,), u, dtype=torch.float64))
    levels = sample(distribution, 2, rng)
    assert (levels > 0).all()
    assert levels.isfinite().all()


@each
def test_the_distribution_function_counts_a_level_that_float32_rounded(distribution):
    """Of a discrete distribution the level itself belongs to P(level <= sigma), whichever way float32 rounded it."""
    levels = distribution.quantile(grid(100))
    torch.testing.assert_close(distribution.cdf(levels.float()), distribution.cdf(levels).float(), rtol=1e-5, atol=1e-6)


# ---- log-normal times


@pytest.mark.parametrize(("mean", "std"), [(-1.2, 1.2), (-3.5, 2.5), (-2.0, 2.0), (0.3, 0.01)])
def test_log_normal_times_agree_with_scipy(mean, std):
    reference, distribution = stats.lognorm(s=std, scale=math.exp(mean)), LogNormal(mean, std)
    u = torch.cat([f64(1e-12, 1e-6), grid(101), f64(1 - 1e-6)])
    np.testing.assert_allclose(distribution.quantile(u), reference.ppf(u.numpy()), rtol=1e-9)
    sigma = distribution.quantile(u)
    np.testing.assert_allclose(distribution.cdf(sigma), reference.cdf(sigma.numpy()), rtol=1e-9, atol=1e-15)


def test_the_moments_of_edms_times_are_those_of_scipys_log_normal(rng):
    n, reference = 200_000, stats.lognorm(s=1.2, scale=math.exp(-1.2))
    levels = sample(EDM_TIMES, n, rng).double()
    assert levels.mean().item() == pytest.approx(reference.mean(), abs=4 * reference.std() / math.sqrt(n))
    assert levels.log().mean().item() == pytest.approx(-1.2, abs=4 * 1.2 / math.sqrt(n))
    assert levels.log().std().item() == pytest.approx(1.2, abs=4 * 1.2 / math.sqrt(2 * n))
    assert stats.skew(levels.log().numpy()) == pytest.approx(0, abs=4 * math.sqrt(6 / n))


def test_the_shares_of_sims_times_that_lie_below_the_teachers_range():
    below = SIM_TIMES.cdf(f64(0.002, 1e-4))
    assert below.tolist() == [pytest.approx(0.139, abs=5e-4), pytest.approx(0.011, abs=5e-4)]


# ---- Karras times


def test_the_karras_levels_run_from_the_smallest_up_and_sid_never_draws_the_largest():
    all_levels, drawn = Karras(highest=999).table(), Karras().table()
    torch.testing.assert_close(all_levels[[0, -1]], f64(0.002, 80.0))
    assert len(drawn) == 801
    torch.testing.assert_close(drawn, all_levels[:801])
    # by hand: (0.002^(1/7) + 800/999 (80^(1/7) - 0.002^(1/7)))^7 = 1.57962…^7
    assert drawn[800].item() == pytest.approx(24.53, abs=0.01)
    steps = drawn ** (1 / 7)
    torch.testing.assert_close(steps.diff(), torch.full((800,), ((80 ** (1 / 7)) - 0.002 ** (1 / 7)) / 999).double())


def test_karras_levels_are_drawn_alike_and_none_above_the_highest(rng):
    distribution = Karras(levels=10, highest=7)
    values, counts = sample(distribution, 40_000, rng).unique(return_counts=True)
    torch.testing.assert_close(values, distribution.table().float())
    assert stats.chisquare(counts.numpy()).pvalue > 0.01
    assert sample(Karras(), 40_000, rng).max() <= Karras().table()[800].float()


# ---- discrete variance-preserving times


@pytest.mark.parametrize("times", [DiscreteVP(), DiscreteVP(steps=7, beta_start=0.05, beta_end=0.6)], ids=repr)
def test_the_vp_levels_are_those_of_a_plain_cumulative_product(times):
    signal, expected = 1.0, []
    for t in range(times.steps):
        signal *= 1 - (times.beta_start + (times.beta_end - times.beta_start) * t / (times.steps - 1))
        if t >= 1:  # the listing draws t from 1 … T - 1
            expected.append(math.sqrt((1 - signal) / signal))
    np.testing.assert_allclose(times.table(), expected, rtol=1e-12)
    np.testing.assert_allclose(times.quantile(grid(times.steps - 1)), expected, rtol=1e-12)


def test_the_usual_vp_process_ends_at_the_level_that_the_literature_gives():
    assert DiscreteVP().table()[-1].item() == pytest.approx(157.407, abs=1e-3)
    assert DiscreteVP().betas()[[0, -1]].tolist() == [pytest.approx(1e-4 + 0.0199 / 999), pytest.approx(0.02)]


# ---- truncated and clamped times


def test_truncated_times_are_the_conditional_distribution():
    low, high = 0.002, 80.0
    ends = [(math.log(end) + 3.5) / 2.5 for end in (low, high)]
    reference, distribution = stats.truncnorm(*ends, loc=-3.5, scale=2.5), Truncated(SIM_TIMES, low, high)
    u = grid(301)
    np.testing.assert_allclose(distribution.quantile(u).log(), reference.ppf(u.numpy()), rtol=1e-9, atol=1e-9)
    sigma = torch.logspace(-4, 3, 200, dtype=torch.float64)
    np.testing.assert_allclose(distribution.cdf(sigma), reference.cdf(sigma.log().numpy()), rtol=1e-9, atol=1e-12)


def test_a_truncated_discrete_distribution_draws_exactly_the_levels_inside():
    distribution, table = Truncated(Karras(), 0.1, 1.0), Karras().table()
    inside = table[(table > 0.1) & (table <= 1.0)]
    torch.testing.assert_close(distribution.quantile(grid()).unique(), inside, rtol=1e-15, atol=0)
    torch.testing.assert_close(distribution.quantile(distribution.cdf(inside)), inside, rtol=1e-15, atol=0)


def test_a_level_at_the_lower_end_is_truncated_and_one_at_the_upper_end_is_not():
    table = Karras(levels=5, highest=4).table()
    distribution = Truncated(Karras(levels=5, highest=4), table[1].item(), table[3].item())
    torch.testing.assert_close(distribution.quantile(grid()).unique(), table[2:4], rtol=0, atol=0)


def test_clamped_times_gather_the_tails_at_the_ends(rng):
    distribution, low, high = Clamped(SIM_TIMES, 0.002, 2.5), 0.002, 2.5
    below, above = 0.1388, 1 - stats.norm.cdf((math.log(2.5) + 3.5) / 2.5)
    levels = sample(distribution, 50_000, rng)
    assert levels.min() == torch.tensor(low)
    assert levels.max() == torch.tensor(high)
    assert (levels == torch.tensor(low)).double().mean().item() == pytest.approx(below, abs=0.006)
    assert (levels == torch.tensor(high)).double().mean().item() == pytest.approx(above, abs=0.004)
    probability = distribution.cdf(f64(low * 0.999, low, 0.1, high * 0.999, high, 2 * high))
    expected = [0, below, stats.norm.cdf((math.log(0.1) + 3.5) / 2.5), 1 - above, 1, 1]
    np.testing.assert_allclose(probability, expected, atol=1e-3)


# ---- what cannot be


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LogNormal(0.0, 0.0), "std = 0.0: must be positive"),
        (lambda: Karras(sigma_min=0.0), "sigma_min = 0.0: must be above 0 and below sigma_max"),
        (lambda: Karras(sigma_min=80.0), "sigma_min = 80.0: must be above 0 and below sigma_max"),
        (lambda: Karras(rho=0.0), "rho = 0.0: must be positive"),
        (lambda: Karras(rho=0.001), "rho = 0.001: must be larger"),
        (lambda: Karras(levels=1, highest=0), "levels = 1: must be at least 2"),
        (lambda: Karras(highest=1000), "highest = 1000: must be in 0 … levels - 1 = 999"),
        (lambda: Karras(highest=-1), "highest = -1: must be in 0"),
        (lambda: DiscreteVP(steps=2), "steps = 2: must be at least 3"),
        (lambda: DiscreteVP(beta_start=0.03), "beta_start = 0.03: must be above 0, below beta_end < 1"),
        (lambda: DiscreteVP(beta_end=1.0), "beta_start = 0.0001: must be above 0, below beta_end < 1"),
        (lambda: Clamped(EDM_TIMES, 0.0, 1.0), "low = 0.0: must be above 0 and below high"),
        (lambda: Clamped(EDM_TIMES, 1.0, 1.0), "low = 1.0: must be above 0 and below high"),
        (lambda: Truncated(EDM_TIMES, 2.0, 1.0), "low = 2.0: must be above 0 and below high"),
        (lambda: Truncated(Karras(), 25.0, 80.0), r"high = 80.0: must be such that Karras\(.*\) has levels in \(25.0,"),
        (lambda: Truncated(Clamped(EDM_TIMES, 1.0, 2.0), 3.0, 4.0), "high = 4.0: must be such that Clamped"),
    ],
)
def test_a_distribution_that_cannot_be_names_the_setting_its_value_and_the_remedy(build, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        build()


# ---- the forward process


def test_diffuse_scales_the_noise_of_each_sample_by_its_own_level(rng):
    x_0, eps = torch.randn(2, 3, 2, 3, 3, generator=rng)
    x_t = diffuse(x_0, torch.tensor([0.0, 0.5, 80.0]), eps)  # a batch as long as the last axis
    torch.testing.assert_close(x_t, torch.stack([x_0[0], x_0[1] + 0.5 * eps[1], x_0[2] + 80 * eps[2]]))


def test_diffuse_passes_gradients_to_the_sample_and_to_its_level(rng):
    x_0, eps = torch.randn(2, 4, 3, generator=rng, requires_grad=True)
    sigma = torch.rand(4, generator=rng).requires_grad_()
    by_x_0, by_sigma = torch.autograd.grad(diffuse(x_0, sigma, eps).sum(), (x_0, sigma))
    torch.testing.assert_close(by_x_0, torch.ones(4, 3))
    torch.testing.assert_close(by_sigma, eps.sum(1))
