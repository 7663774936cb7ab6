import numpy as np
import pytest
import torch
from scipy.stats import chisquare, multivariate_normal, norm
from torch import nn

from simdistill.method.denoisers import GaussianMixture, Preconditioned, denoised_from_score, residual, score
from simdistill.method.preconditioning import EDMScaling

F64 = torch.float64


class Net(nn.Module):
    """F(x, c_noise, class_labels): smooth in all three, so that float32 costs it no more than its own rounding."""

    def __init__(self, dim=6, classes=0):
        super().__init__()
        torch.manual_seed(dim)
        self.linear, self.labels = nn.Linear(dim, dim), nn.Linear(max(classes, 1), dim, bias=False)

    def forward(self, x, noise_labels, class_labels):
        h = self.linear(x.flatten(1)) + noise_labels[:, None] / 4
        if class_labels is not None:
            h = h + self.labels(class_labels)
        return torch.tanh(h).reshape(x.shape)


def edm(net, x, sigma, labels=None, sigma_data=0.5):
    """EDM's denoiser from its Table 1, written plainly."""
    s = sigma.reshape(-1, *[1] * (x.ndim - 1))
    c_skip = sigma_data**2 / (s**2 + sigma_data**2)
    c_out = s * sigma_data / (s**2 + sigma_data**2) ** 0.5
    c_in = 1 / (s**2 + sigma_data**2) ** 0.5
    return c_skip * x + c_out * net(c_in * x, sigma.log() / 4, labels)


# ---- EDM's preconditioning


@pytest.mark.parametrize("shape", [(6,), (1, 2, 3)])
@pytest.mark.parametrize("sigma_data", [0.5, 1.7])
def test_the_preconditioned_denoiser_is_that_of_edms_table_1(shape, sigma_data, rng):
    net = Net().double()
    denoiser = Preconditioned(net, shape, scaling=EDMScaling(sigma_data))
    sigma = torch.tensor([0.002, 0.05, 0.4, 2.5, 9.0, 80.0], dtype=F64)  # a batch as long as the vector
    x_t = torch.randn(6, *shape, generator=rng, dtype=F64) * (1 + sigma.reshape(-1, *[1] * len(shape)))
    expected = edm(net, x_t, sigma, sigma_data=sigma_data)
    torch.testing.assert_close(denoiser(x_t, sigma), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(denoiser.residual(x_t, sigma), expected - x_t, rtol=1e-11, atol=1e-12)


def test_a_class_label_reaches_the_network_as_one_hot_and_an_unconditional_network_gets_none(rng):
    net, x_t = Net(classes=3).double(), torch.randn(4, 6, generator=rng, dtype=F64)
    sigma, labels = torch.tensor([0.1, 0.5, 2.0, 2.0], dtype=F64), torch.tensor([2, 0, 1, 2])
    conditional, unconditional = Preconditioned(net, (6,), classes=3), Preconditioned(net, (6,))
    torch.testing.assert_close(conditional(x_t, sigma, labels), edm(net, x_t, sigma, torch.eye(3, dtype=F64)[labels]))
    torch.testing.assert_close(unconditional(x_t, sigma, labels), edm(net, x_t, sigma, None))


def test_a_conditional_network_requires_labels():
    with pytest.raises(ValueError, match=r"condition = None: must be class labels 0 … 2"):
        Preconditioned(Net(classes=3), (6,), classes=3)(torch.zeros(2, 6), torch.ones(2))


@pytest.mark.parametrize("sigma", [1e-4, 1e-5])
def test_the_losses_differences_keep_float32s_digits_at_small_noise(sigma, rng):
    """d - x_0 and d_psi - d_q, of the size of sigma, are compared with float64; by subtraction they would be lost."""
    net, other = Net(), Net()
    with torch.no_grad():
        other.linear.bias += 0.5
    x_0, eps = torch.randn(2, 200, 6, generator=rng)
    level = torch.full((200,), sigma)

    def differences(dtype):
        first, second = (Preconditioned(n.to(dtype), (6,)) for n in (net, other))
        s, noise = level.to(dtype), eps.to(dtype)
        x_t = (x_0 + level[:, None] * eps).to(dtype)  # the same float32 numbers for both
        r, r_other = first.residual(x_t, s), second.residual(x_t, s)
        return r + s[:, None] * noise, r - r_other, first(x_t, s) - x_0.to(dtype)

    error, y, _ = differences(F64)
    error32, y32, naive32 = (a.double() for a in differences(torch.float32))

    def relative(a, b):
        return ((a - b).norm() / b.norm()).item()

    assert relative(error32, error) < 1e-6
    assert relative(y32, y) < 1e-6
    assert relative(naive32, error) > 1e-4


def test_state_dict_names_are_edms():
    names = Preconditioned(Net(), (6,)).state_dict().keys()
    assert set(names) == {"model.linear.weight", "model.linear.bias", "model.labels.weight"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma_min": 0.0}, "sigma_min = 0.0: must be above 0 and below sigma_max"),
        ({"sigma_min": 3.0, "sigma_max": 2.0}, "sigma_min = 3.0: must be above 0 and below sigma_max"),
    ],
)
def test_preconditioning_refuses_what_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        Preconditioned(Net(), (6,), **settings)


# ---- residual, score and denoised image of any denoiser


def shrinking(x_t, sigma, condition=None):
    """The denoiser of a standard normal, as a plain function."""
    return x_t / (1 + sigma**2)[:, None]


def test_the_residual_of_a_plain_function_is_by_subtraction_and_its_score_that_of_its_law(rng):
    x_t, sigma = torch.randn(3, 2, generator=rng, dtype=F64), torch.tensor([0.1, 1.0, 30.0], dtype=F64)
    torch.testing.assert_close(residual(shrinking, x_t, sigma), shrinking(x_t, sigma) - x_t)
    torch.testing.assert_close(score(shrinking, x_t, sigma), -x_t / (1 + sigma**2)[:, None])


def test_score_and_denoised_image_are_there_and_back(rng):
    denoiser = Preconditioned(Net(), (6,)).double()
    x_t, sigma = torch.randn(5, 6, generator=rng, dtype=F64), torch.tensor([1e-4, 0.01, 0.6, 5.0, 80.0], dtype=F64)
    s = score(denoiser, x_t, sigma)
    torch.testing.assert_close(denoised_from_score(s, x_t, sigma), denoiser(x_t, sigma), rtol=1e-12, atol=1e-12)
    back = score(lambda x_t, sigma, condition: denoised_from_score(s, x_t, sigma), x_t, sigma)
    torch.testing.assert_close(back[2:], s[2:], rtol=1e-10, atol=1e-12)


def test_the_condition_is_handed_on(rng):
    def shifted(x_t, sigma, condition):
        return x_t + condition[:, None]

    x_t, labels = torch.randn(3, 2, generator=rng), torch.tensor([5, 6, 7])
    torch.testing.assert_close(residual(shifted, x_t, torch.ones(3), labels), labels[:, None].expand(3, 2).float())


class WrongResidual:
    def __call__(self, x_t, sigma, condition=None):
        return x_t

    def residual(self, x_t, sigma, condition=None):
        return x_t.mean(1, keepdim=True)


@pytest.mark.parametrize(
    "denoiser",
    [lambda x_t, sigma, condition: x_t[:, :1], lambda x_t, sigma, condition: x_t[0], WrongResidual()],
    ids=["too few channels", "no batch", "residual"],
)
def test_an_output_of_another_shape_is_refused_even_if_it_would_broadcast(denoiser):
    x_t = torch.zeros(2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"denoiser output = \[.*\]: must be of its input's shape, \[2, 3, 4, 4\]"):
        residual(denoiser, x_t, torch.ones(2))


# ---- exact denoisers of Gaussian mixtures

MEANS = np.array([[0.0, 0.0], [1.5, -1.0], [-1.0, 2.0]])
COVARIANCES = np.array([[[0.3, 0.1], [0.1, 0.2]], [[0.05, 0.0], [0.0, 0.5]], [[0.4, -0.2], [-0.2, 0.3]]])
WEIGHTS = np.array([0.5, 0.2, 0.3])


def mixture(dtype=F64):
    return GaussianMixture(*(torch.tensor(a, dtype=dtype) for a in (MEANS, COVARIANCES, WEIGHTS)))


@pytest.mark.parametrize("sigma", [1e-4, 0.1, 1.0, 80.0])
def test_one_component_is_the_linear_denoiser_of_a_gaussian(sigma, rng):
    m, a = torch.randn(3, generator=rng, dtype=F64), torch.randn(3, 3, generator=rng, dtype=F64)
    c = a @ a.T + 0.1 * torch.eye(3, dtype=F64)
    x_t = torch.randn(5, 3, generator=rng, dtype=F64) * (1 + sigma)
    # E[x_0 | x_t] = m + C (C + sigma² I)⁻¹ (x_t - m)
    gain = np.linalg.solve(c.numpy() + sigma**2 * np.eye(3), c.numpy()).T
    expected = m.numpy() + (x_t - m).numpy() @ gain.T
    np.testing.assert_allclose(
        GaussianMixture(m[None], c[None])(x_t, torch.full((5,), sigma, dtype=F64)), expected, rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("sigma", [0.05, 0.4, 2.0])
def test_in_one_dimension_the_denoiser_is_the_posterior_mean_by_quadrature(sigma):
    means, stds, weights = np.array([-1.0, 0.2, 1.5]), np.array([0.1, 0.3, 0.2]), np.array([0.2, 0.5, 0.3])
    x_0, x_t = np.linspace(-5, 5, 20_001), np.linspace(-3, 3, 13)
    prior = sum(w * norm.pdf(x_0, m, s) for w, m, s in zip(weights, means, stds, strict=True))
    posterior = prior * norm.pdf(x_t[:, None], x_0, sigma)
    expected = (posterior * x_0).sum(1) / posterior.sum(1)
    exact = GaussianMixture(
        torch.tensor(means)[:, None], torch.tensor(stds**2)[:, None, None], torch.tensor(3 * weights)
    )
    denoised = exact(torch.tensor(x_t)[:, None], torch.full((13,), sigma, dtype=F64))
    np.testing.assert_allclose(denoised[:, 0], expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("sigma", [0.2, 1.5])
def test_in_two_dimensions_the_denoiser_and_the_density_are_those_of_quadrature(sigma):
    axis = np.linspace(-6, 6, 401)
    x_0 = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    prior = sum(w * multivariate_normal(m, c).pdf(x_0) for w, m, c in zip(WEIGHTS, MEANS, COVARIANCES, strict=True))
    x_t = np.array([[0.0, 0.0], [1.0, -1.5], [-0.5, 1.0], [0.3, 0.9]])
    posterior = prior * np.exp(-((x_t[:, None] - x_0) ** 2).sum(-1) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
    evidence, level = posterior.sum(1), torch.full((4,), sigma, dtype=F64)
    np.testing.assert_allclose(mixture()(torch.tensor(x_t), level), posterior @ x_0 / evidence[:, None], atol=1e-9)
    log_density = np.log(evidence * (axis[1] - axis[0]) ** 2)
    np.testing.assert_allclose(mixture().log_density(torch.tensor(x_t), level), log_density, atol=1e-9)


@pytest.mark.parametrize("weights", [WEIGHTS, None], ids=["weighted", "equal"])
@pytest.mark.parametrize("sigma", [1e-3, 0.5, 80.0])
def test_the_log_density_is_scipys_and_its_gradient_is_the_score(sigma, weights, rng):
    exact = GaussianMixture(
        torch.tensor(MEANS), torch.tensor(COVARIANCES), None if weights is None else torch.tensor(weights)
    )
    x_t = (torch.randn(7, 2, generator=rng, dtype=F64) * (1 + sigma)).requires_grad_()
    level = torch.full((7,), sigma, dtype=F64)
    log_density = exact.log_density(x_t, level)
    shares = np.full(3, 1 / 3) if weights is None else weights
    expected = sum(
        w * multivariate_normal(m, c + sigma**2 * np.eye(2)).pdf(x_t.detach().numpy())
        for w, m, c in zip(shares, MEANS, COVARIANCES, strict=True)
    )
    np.testing.assert_allclose(log_density.detach(), np.log(expected), rtol=1e-12, atol=1e-11)
    (gradient,) = torch.autograd.grad(log_density.sum(), x_t)
    torch.testing.assert_close(score(exact, x_t, level), gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sigma", [1e-4, 1e-5])
def test_a_mixtures_residual_keeps_float32s_digits(sigma, rng):
    x_t, level = torch.randn(100, 2, generator=rng), torch.full((100,), sigma)
    exact, ours = mixture().residual(x_t.double(), level.double()), mixture(torch.float32).residual(x_t, level)
    assert ((ours.double() - exact).norm() / exact.norm()).item() < 1e-5
    naive = (mixture(torch.float32)(x_t, level) - x_t).double()
    assert ((naive - exact).norm() / exact.norm()).item() > 0.1  # sigma² is below float32's resolution of x_t


def test_a_mixture_far_from_all_its_components_returns_to_the_nearest():
    exact = GaussianMixture(torch.tensor([[0.0, 0.0], [4.0, 0.0]]), 0.01 * torch.eye(2).expand(2, 2, 2))
    denoised = exact(torch.tensor([[1e3, 0.0], [-1e3, 0.0]]), torch.full((2,), 0.01))
    assert denoised.isfinite().all()
    # a share 0.01 / (0.01 + 0.0001) of the way stays: every component is that wide
    torch.testing.assert_close(denoised[:, 0], torch.tensor([4 + 996 / 1.01, -1000 / 1.01]))


def test_samples_of_a_mixture_have_its_moments_and_shares(rng):
    n = 100_000
    x_0 = mixture().sample(n, rng).numpy()
    mean = WEIGHTS @ MEANS
    covariance = np.einsum("k,kij->ij", WEIGHTS, COVARIANCES) + (WEIGHTS[:, None] * MEANS).T @ MEANS
    covariance -= np.outer(mean, mean)
    np.testing.assert_allclose(x_0.mean(0), mean, atol=4 * np.sqrt(covariance.max() / n))
    np.testing.assert_allclose(np.cov(x_0.T), covariance, atol=0.02)
    # components far apart in comparison with their width: the nearest is where a sample came from
    tight = GaussianMixture(torch.tensor(MEANS), torch.tensor(COVARIANCES) * 1e-4, torch.tensor(WEIGHTS))
    x_0 = tight.sample(n, rng).numpy()
    nearest = ((x_0[:, None] - MEANS) ** 2).sum(-1).argmin(1)
    assert chisquare(np.bincount(nearest), n * WEIGHTS).pvalue > 0.01
    for k in range(3):
        within = np.cov(x_0[nearest == k].T) * 1e4
        np.testing.assert_allclose(within, COVARIANCES[k], atol=0.02)


def test_a_mixture_knows_its_shape_scales_its_weights_and_refuses_empty_components(rng):
    assert mixture().shape == (2,)
    doubled = GaussianMixture(torch.tensor(MEANS), torch.tensor(COVARIANCES), torch.tensor(2 * WEIGHTS))
    torch.testing.assert_close(doubled.weights, torch.tensor(WEIGHTS))
    with pytest.raises(ValueError, match=r"weights = \[1.0, 0.0, 1.0\]: must be positive"):
        GaussianMixture(torch.tensor(MEANS), torch.tensor(COVARIANCES), torch.tensor([1.0, 0.0, 1.0], dtype=F64))


@pytest.mark.parametrize("sigma", [1e-3, 0.5, 80.0])
def test_one_covariance_for_all_components_is_that_of_each(sigma, rng):
    one = torch.tensor(COVARIANCES[:1])
    shared = GaussianMixture(torch.tensor(MEANS), one, torch.tensor(WEIGHTS))
    each = GaussianMixture(torch.tensor(MEANS), one.repeat(3, 1, 1), torch.tensor(WEIGHTS))
    x_t, level = torch.randn(7, 2, generator=rng, dtype=F64) * (1 + sigma), torch.full((7,), sigma, dtype=F64)
    torch.testing.assert_close(shared.residual(x_t, level), each.residual(x_t, level), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(shared.log_density(x_t, level), each.log_density(x_t, level), rtol=1e-12, atol=1e-12)
    drawn = (mixture.sample(20, torch.Generator().manual_seed(1)) for mixture in (shared, each))
    torch.testing.assert_close(*drawn, rtol=0, atol=0)


def test_a_mixture_can_be_differentiated_in_its_means_and_covariances():
    parameters = torch.tensor(MEANS, requires_grad=True), torch.tensor(np.linalg.cholesky(COVARIANCES)).requires_grad_()
    x_t, sigma = torch.tensor([[0.3, -0.2]], dtype=F64), torch.tensor([0.7], dtype=F64)

    def denoised(means, factors):
        return GaussianMixture(means, factors @ factors.mT, torch.tensor(WEIGHTS))(x_t, sigma)

    assert torch.autograd.gradcheck(denoised, parameters)
