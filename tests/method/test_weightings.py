import math

import pytest
import torch

from simdistill.method.noise import DiscreteVP
from simdistill.method.weightings import EDM, WEIGHTINGS, InverseError, Uniform, VPScore

SIGMA = torch.tensor([1e-4, 0.002, 0.1, 0.5, 2.5, 80.0])


@pytest.mark.parametrize("kind", WEIGHTINGS, ids=lambda kind: kind.__name__)
def test_every_weight_is_one_positive_finite_number_a_sample_without_a_gradient_through_the_error(kind, rng):
    error = torch.randn(6, 3, 6, generator=rng, requires_grad=True)
    weight = kind()(SIGMA, error)
    assert weight.shape == (6,)
    assert weight.dtype == torch.float32
    assert (weight > 0).all()
    assert weight.isfinite().all()
    assert not weight.requires_grad


def test_the_uniform_weight_is_one():
    assert Uniform()(SIGMA, torch.zeros(6, 2)).tolist() == [1] * 6


@pytest.mark.parametrize("sigma_data", [0.5, 0.75])
def test_edms_weight_as_the_paper_writes_it(sigma_data):
    weight = EDM(sigma_data)(SIGMA.double(), torch.zeros(6, 2).double())
    expected = [(s**2 + sigma_data**2) / (s * sigma_data) ** 2 for s in SIGMA.double().tolist()]
    assert weight.tolist() == pytest.approx(expected, rel=1e-12)


def test_edms_weight_makes_the_loss_of_an_untrained_preconditioned_network_one():
    """With F = 0 and data of variance sigma_data² the squared error a dimension is c_out² = 1/w at every level."""
    s, sigma_data = SIGMA.double(), 0.5
    c_skip = sigma_data**2 / (s**2 + sigma_data**2)
    error = (c_skip - 1) ** 2 * sigma_data**2 + c_skip**2 * s**2
    torch.testing.assert_close(EDM(sigma_data)(s, s[:, None]) * error, torch.ones_like(s))


def test_sids_weight_is_the_inverse_mean_absolute_error_of_the_sample():
    error = torch.tensor([[[1.0, -3.0], [0.0, 4.0]], [[0.5, 0.5], [-0.5, 0.5]]])
    assert InverseError()(torch.tensor([7.0, 0.1]), error).tolist() == [0.5, 2.0]


def test_sids_weight_in_score_space_times_the_squared_score_is_that_in_denoiser_space(rng):
    """C sigma⁴ / ‖x_0 - d_q‖₁ on ‖s_psi - s_q‖² [B.11] against w on ‖d_psi - d_q‖², sigma² times as large."""
    sigma = SIGMA[1:].double()
    error, y = torch.randn(2, 5, 8, generator=rng, dtype=torch.float64)
    in_score_space = 8 * sigma**4 / error.abs().sum(1) * (y / sigma[:, None] ** 2).square().sum(1)
    torch.testing.assert_close(InverseError()(sigma, error) * y.square().sum(1), in_score_space)


def test_dmds_weight_on_scores_is_the_same_weight_on_denoised_images(rng):
    """w_t = sigma² C / ‖d_q - x_0‖₁ on s_psi - s_q (Yin et al. 2024, equation 8 with alpha_t = 1)."""
    sigma = SIGMA[1:].double()
    error, y = torch.randn(2, 5, 8, generator=rng, dtype=torch.float64)
    scores = y / sigma[:, None] ** 2
    on_scores = (sigma**2 * 8 / error.abs().sum(1))[:, None] * scores
    torch.testing.assert_close(InverseError()(sigma, error)[:, None] * y, on_scores)


def test_sids_weight_stays_finite_where_there_is_no_error():
    assert InverseError()(torch.ones(1), torch.zeros(1, 4)).item() == pytest.approx(1e5)


# ---- Listing 1


@pytest.mark.parametrize("times", [DiscreteVP(), DiscreteVP(steps=20, beta_start=0.01, beta_end=0.4)], ids=repr)
def test_the_vp_weight_turns_a_denoisers_error_into_the_loss_of_listing_1(times, rng):
    betas = torch.linspace(times.beta_start, times.beta_end, times.steps, dtype=torch.float64)
    signal = torch.stack([math.prod(1 - betas[: t + 1]) for t in range(times.steps)])  # a_t by a plain product
    t = torch.cat([torch.tensor([1, times.steps - 1]), torch.randint(1, times.steps, (62,), generator=rng)])
    x_0, noise, denoised = torch.randn(3, 64, 2, generator=rng, dtype=torch.float64)

    # the listing, in VP variables: x_t = √a_t x_0 + sigma_t noise with sigma_t² = 1 - a_t
    a_t, sigma_t = signal[t][:, None], (1 - signal[t]).sqrt()[:, None]
    x_t = a_t.sqrt() * x_0 + sigma_t * noise
    score = (a_t.sqrt() * denoised - x_t) / sigma_t**2  # Tweedie
    g2_t = betas[t]
    loss = g2_t * (score + noise / sigma_t).square().sum(-1) * times.steps

    error = denoised - x_0
    sigma = ((1 - signal) / signal).sqrt()[t]
    ours = VPScore(times)(sigma, error) * error.square().sum(-1)
    torch.testing.assert_close(ours, loss, rtol=1e-9, atol=0)
    in_float32 = VPScore(times)(sigma.float(), error.float()) * error.float().square().sum(-1)
    torch.testing.assert_close(in_float32.double(), loss, rtol=1e-5, atol=0)


def test_the_vp_weight_takes_the_upper_beta_between_two_levels_and_the_last_beyond_all():
    times = DiscreteVP(steps=5, beta_start=0.1, beta_end=0.5)  # betas 0.2, 0.3, 0.4, 0.5 at t = 1 … 4
    table = times.table()
    sigma = torch.stack([table[0] / 10, table[0], (table[1] + table[2]) / 2, table[3], 10 * table[3]])
    beta = VPScore(times)(sigma, sigma[:, None]) / (5 * (1 + sigma**2) / sigma**4)
    torch.testing.assert_close(beta, torch.tensor([0.2, 0.2, 0.4, 0.5, 0.5], dtype=torch.float64))


def test_sigma_data_must_be_positive():
    with pytest.raises(ValueError, match=r"^sigma_data = 0.0: must be positive"):
        EDM(sigma_data=0.0)
