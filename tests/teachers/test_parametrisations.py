import pytest
import torch
from torch import nn

from simdistill.method.denoisers import GaussianMixture
from simdistill.method.noise import DiscreteVP
from simdistill.teachers.prediction_types import (
    EpsilonPrediction,
    FlowPrediction,
    NearestTime,
    SamplePrediction,
    VelocityPrediction,
)

F64 = torch.float64
SIGMAS = [1e-5, 1e-4, 0.01, 0.3, 1.0, 2.5, 20.0, 80.0]
MEAN = torch.tensor([0.4, -1.0, 2.0], dtype=F64)
COVARIANCE = torch.tensor([[0.5, 0.2, 0.0], [0.2, 0.3, -0.1], [0.0, -0.1, 1.0]], dtype=F64)


def gaussian_regression(state, signal, noise):
    """E[x_0 | state] and E[eps | state] for state = signal x_0 + noise eps and x_0 ~ N(MEAN, COVARIANCE)."""
    mean, covariance = MEAN.to(state), COVARIANCE.to(state)
    signal, noise = signal[:, None, None], noise[:, None, None]
    joint = signal**2 * covariance + noise**2 * torch.eye(3).to(state)
    surprise = torch.linalg.solve(joint, (state - signal[:, 0] * mean)[..., None])
    return mean + (signal * covariance @ surprise)[..., 0], (noise * surprise)[..., 0]


def vp(time):
    """Signal and noise of a variance-preserving process whose time is sigma itself."""
    return 1 / (1 + time**2).sqrt(), time / (1 + time**2).sqrt()


def exact_epsilon(state, time, condition):
    return gaussian_regression(state, *vp(time))[1]


def exact_velocity(state, time, condition):
    signal, noise = vp(time)
    x_0, eps = gaussian_regression(state, signal, noise)
    return signal[:, None] * eps - noise[:, None] * x_0


def exact_flow(state, time, condition):
    x_0, eps = gaussian_regression(state, 1 - time, time)
    return eps - x_0


def sigma_is_time(sigma):
    return sigma


EXACT = {
    "epsilon": EpsilonPrediction(exact_epsilon, sigma_is_time),
    "velocity": VelocityPrediction(exact_velocity, sigma_is_time),
    "flow": FlowPrediction(exact_flow),
}
adapters = pytest.mark.parametrize("adapter", EXACT.values(), ids=EXACT)


def noisy(rng, sigma):
    x_0 = MEAN + torch.randn(50, 3, generator=rng, dtype=F64) @ torch.linalg.cholesky(COVARIANCE).T
    return x_0 + sigma * torch.randn(50, 3, generator=rng, dtype=F64), torch.full((50,), sigma, dtype=F64)


# ---- exact on a Gaussian


@adapters
@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_exact_native_predictor_becomes_the_exact_denoiser(adapter, sigma, rng):
    x_t, level = noisy(rng, sigma)
    exact = GaussianMixture(MEAN[None], COVARIANCE[None])
    torch.testing.assert_close(adapter(x_t, level), exact(x_t, level), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(adapter.residual(x_t, level), exact.residual(x_t, level), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_an_exact_predictor_of_the_image_is_the_exact_denoiser(sigma, rng):
    x_t, level = noisy(rng, sigma)
    adapter = SamplePrediction(lambda state, time, _: gaussian_regression(state, *vp(time))[0], sigma_is_time)
    torch.testing.assert_close(adapter(x_t, level), GaussianMixture(MEAN[None], COVARIANCE[None])(x_t, level))


@adapters
@pytest.mark.parametrize("sigma", [1e-4, 1e-5])
def test_the_residual_keeps_float32s_digits_at_small_noise(adapter, sigma, rng):
    """Against float64 with the network's own answer the same, as d - x_0 = residual + sigma eps needs it."""
    x_t, level = noisy(rng, sigma)

    def smooth(state, time, condition):
        return torch.sin(state + time[:, None])

    networks = {"network": smooth} | ({"time": sigma_is_time} if hasattr(adapter, "time") else {})
    ours, x_t = type(adapter)(**networks), x_t.float()
    expected = ours.residual(x_t.double(), level.float().double())
    assert ((ours.residual(x_t, level.float()).double() - expected).norm() / expected.norm()).item() < 1e-6
    naive = (ours(x_t, level.float()) - x_t).double()
    assert ((naive - expected).norm() / expected.norm()).item() > 1e-4


# ---- there and back: the denoised image says what the network said, in the native process's own formula


class Recorded(nn.Module):
    """A network that returns what it is told to, and remembers what it was asked."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.scale = answer, nn.Parameter(torch.ones((), dtype=F64))

    def forward(self, state, time, condition):
        self.asked = state, time, condition
        return self.scale * self.answer


@pytest.fixture
def drawn(rng):
    x_t, answer = torch.randn(2, 6, 2, 3, generator=rng, dtype=F64)
    sigma = torch.tensor([0.002, 0.1, 0.7, 1.0, 10.0, 80.0], dtype=F64)
    return x_t, sigma, Recorded(answer), torch.arange(6)


def column(per_sample):
    return per_sample[:, None, None]


def test_epsilon_there_and_back(drawn):
    x_t, sigma, network, labels = drawn
    denoised = EpsilonPrediction(network, lambda sigma: (100 * sigma).long())(x_t, sigma, labels)
    state, time, condition = network.asked
    a = column(1 / (1 + sigma**2))
    torch.testing.assert_close(state, a.sqrt() * x_t)
    assert time.tolist() == (100 * sigma).long().tolist()
    assert condition is labels
    torch.testing.assert_close(a.sqrt() * denoised + (1 - a).sqrt() * network.answer, state)


def test_velocity_there_and_back(drawn):
    x_t, sigma, network, labels = drawn
    denoised = VelocityPrediction(network, lambda sigma: (100 * sigma).long())(x_t, sigma, labels)
    state, time, condition = network.asked
    a = column(1 / (1 + sigma**2))
    torch.testing.assert_close(state, a.sqrt() * x_t)
    assert time.tolist() == (100 * sigma).long().tolist()
    assert condition is labels
    eps = (state - a.sqrt() * denoised) / (1 - a).sqrt()
    torch.testing.assert_close(a.sqrt() * eps - (1 - a).sqrt() * denoised, network.answer)


def test_the_image_is_the_networks_answer(drawn):
    x_t, sigma, network, labels = drawn
    denoised = SamplePrediction(network, lambda sigma: (100 * sigma).long())(x_t, sigma, labels)
    state, time, condition = network.asked
    torch.testing.assert_close(state, column(1 / (1 + sigma**2).sqrt()) * x_t)
    assert time.tolist() == (100 * sigma).long().tolist()
    assert condition is labels
    torch.testing.assert_close(denoised, network.answer)


def test_flow_there_and_back(drawn):
    x_t, sigma, network, labels = drawn
    denoised = FlowPrediction(network)(x_t, sigma, labels)
    state, time, condition = network.asked
    torch.testing.assert_close(time, 1 - 1 / (1 + sigma))
    assert condition is labels
    # the state is (1 - s) x_0 + s eps of the same x_0 and eps
    s, eps = column(time), (x_t - denoised) / column(sigma)
    torch.testing.assert_close((1 - s) * denoised + s * eps, state)
    torch.testing.assert_close(eps - denoised, network.answer)


@pytest.mark.parametrize("kind", [EpsilonPrediction, VelocityPrediction, SamplePrediction, FlowPrediction])
def test_a_wrapped_module_can_be_trained_and_stored(kind, drawn):
    x_t, sigma, network, _ = drawn
    denoiser = kind(network) if kind is FlowPrediction else kind(network, sigma_is_time)
    denoiser(x_t, sigma).square().sum().backward()
    assert network.scale.grad.abs() > 0
    assert list(denoiser.state_dict()) == ["network.scale"]


# ---- the nearest level of a discrete process


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_every_level_of_a_table_is_its_own_nearest_and_the_ends_take_all_beyond(dtype):
    table = DiscreteVP().table()
    nearest = NearestTime(table)
    times = nearest(table.to(dtype))
    assert times.dtype == torch.int64
    assert times.tolist() == list(range(999))
    assert nearest(torch.tensor([1e-9, 1e-4, 1e3, 1e9], dtype=dtype)).tolist() == [0, 0, 998, 998]


def test_between_two_levels_the_middle_is_the_border():
    nearest = NearestTime(torch.tensor([0.1, 0.4, 10.0]))
    assert nearest(torch.tensor([0.249, 0.251, 5.19, 5.21])).tolist() == [0, 1, 1, 2]
