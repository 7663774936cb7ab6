"""The four rows of Karras et al. (2022), Table 1: as the table writes them, and exact on a Gaussian."""

import math

import pytest
import torch
from torch import nn

from simdistill.method.denoisers import Preconditioned
from simdistill.method.preconditioning import EDMScaling, IDDPMScaling, VEScaling, VPScaling

F64 = torch.float64
SIGMA = torch.tensor([1e-4, 0.002, 0.02, 0.3, 1.0, 2.5, 30.0, 80.0], dtype=F64)
SCALINGS = [EDMScaling(), EDMScaling(1.3), VPScaling(), VPScaling(10.0, 0.2, 400), VEScaling(), IDDPMScaling()]

scalings = pytest.mark.parametrize("scaling", SCALINGS, ids=repr)


def edm(s, sigma_data):
    variance = s**2 + sigma_data**2
    return sigma_data**2 / variance, s * sigma_data / math.sqrt(variance), 1 / math.sqrt(variance), math.log(s) / 4


def vp(s, beta_d, beta_min, steps):
    t = (math.sqrt(beta_min**2 + 2 * beta_d * math.log(1 + s**2)) - beta_min) / beta_d
    return 1, -s, 1 / math.sqrt(s**2 + 1), (steps - 1) * t


def ve(s):
    return 1, s, 1, math.log(s / 2)


def iddpm(s, c_1, c_2, steps):
    """With the recursion of the paper, a step at a time."""

    def a(j):
        return math.sin(math.pi / 2 * j / (steps * (c_2 + 1))) ** 2

    u = [0.0]
    for j in range(steps, 0, -1):
        u.insert(0, math.sqrt((u[0] ** 2 + 1) / max(a(j - 1) / a(j), c_1) - 1))
    nearest = min(range(steps), key=lambda j: abs(u[j] - s))
    return 1, -s, 1 / math.sqrt(s**2 + 1), steps - 1 - nearest


@pytest.mark.parametrize(
    ("scaling", "row"),
    [
        (EDMScaling(), lambda s: edm(s, 0.5)),
        (EDMScaling(1.3), lambda s: edm(s, 1.3)),
        (VPScaling(), lambda s: vp(s, 19.9, 0.1, 1000)),
        (VPScaling(10.0, 0.2, 400), lambda s: vp(s, 10.0, 0.2, 400)),
        (VEScaling(), ve),
        (IDDPMScaling(), lambda s: iddpm(s, 0.001, 0.008, 1000)),
        (IDDPMScaling(0.01, 0.02, 50), lambda s: iddpm(s, 0.01, 0.02, 50)),
    ],
    ids=["EDM", "EDM 1.3", "VP", "VP 400", "VE", "iDDPM", "iDDPM 50"],
)
def test_a_scaling_is_its_row_of_the_table(scaling, row):
    expected = torch.tensor([row(s) for s in SIGMA.tolist()], dtype=F64)
    expected[:, 0] = 1 - expected[:, 0]
    torch.testing.assert_close(torch.stack(scaling(SIGMA), 1), expected, rtol=1e-7, atol=1e-12)
    single = torch.stack(scaling(SIGMA.float()), 1)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), torch.stack(scaling(SIGMA), 1), rtol=2e-6, atol=1e-6)


def test_the_ends_of_the_published_schedules():
    """As Karras et al. (2022) give them: u_0 = 20291 and u_999 = 0.0064 (appendix C.3.4), sigma(1) = 152 for VP."""
    u = IDDPMScaling().levels
    assert u.shape == (1000,)
    assert round(u[0].item()) == 20_291
    assert u[999].item() == pytest.approx(0.0064, abs=5e-5)
    assert (u[:-1] > u[1:]).all()
    assert VPScaling().sigma(1) == pytest.approx(152, abs=0.5)
    assert VPScaling().sigma(1e-3) == pytest.approx(0.01, rel=0.06)


def test_discrete_times_are_those_of_the_levels_and_end_at_zero():
    scaling = IDDPMScaling()
    torch.testing.assert_close(scaling(scaling.levels).c_noise, torch.arange(999, -1, -1, dtype=F64))
    assert scaling(torch.tensor([1e-5, 1e9])).c_noise.tolist() == [0, 999]


def test_vps_time_and_level_are_inverse_to_each_other():
    scaling = VPScaling()
    for t in (1e-6, 1e-5, 0.003, 0.2, 1.0):
        sigma = torch.tensor([scaling.sigma(t)], dtype=F64)
        assert scaling(sigma).c_noise.item() == pytest.approx(999 * t, rel=1e-9)


class BestNetwork(nn.Module):
    """What F must be for data N(0, variance I): from the input c_in x and c_noise alone, in closed form.

    The best denoiser is x variance / (variance + sigma²); sigma is found from c_noise by the inverse of the scaling.
    """

    def __init__(self, scaling, variance):
        super().__init__()
        self.scaling, self.variance = scaling, variance

    def sigma(self, c_noise):
        match self.scaling:
            case EDMScaling():
                return torch.exp(4 * c_noise)
            case VPScaling(beta_d, beta_min, steps):
                t = c_noise / (steps - 1)
                return torch.expm1(beta_d * t**2 / 2 + beta_min * t).sqrt()
            case VEScaling():
                return 2 * torch.exp(c_noise)
            case IDDPMScaling():
                return self.scaling.levels[self.scaling.steps - 1 - c_noise.long()]

    def forward(self, z, c_noise, class_labels=None):
        s, v = self.sigma(c_noise.double()), self.variance
        match self.scaling:
            case EDMScaling(d):  # s d/√(s²+d²) F = (v/(v+s²) - d²/(s²+d²)) √(s²+d²) z
                factor = s * (v - d**2) / (d * (v + s**2))
            case VEScaling():  # x + s F = x v/(v+s²)
                factor = -s / (v + s**2)
            case _:  # x - s F = x v/(v+s²), x = √(1+s²) z
                factor = s * torch.sqrt(1 + s**2) / (v + s**2)
        return (factor[:, None] * z).to(z.dtype)


@scalings
@pytest.mark.parametrize("variance", [0.1, 0.25, 2.0])
def test_the_denoiser_of_the_best_network_is_that_of_the_gaussian(scaling, variance, rng):
    levels = scaling.levels[::37] if isinstance(scaling, IDDPMScaling) else torch.logspace(-4, math.log10(80), 30)
    sigma = levels.float()
    x_t = torch.randn(len(sigma), 50, generator=rng) * (variance + sigma[:, None] ** 2).sqrt()
    denoiser = Preconditioned(BestNetwork(scaling, variance), (50,), scaling=scaling)
    s, x = sigma.double()[:, None], x_t.double()
    residual, denoised = -(s**2) / (variance + s**2) * x, variance / (variance + s**2) * x

    def error(ours, exact, scale):
        return ((ours.double() - exact).norm(dim=1) / scale.norm(dim=1)).max().item()

    # sigma itself reaches the network rounded to float32, in ln(sigma)
    assert error(denoiser.residual(x_t, sigma), residual, residual) < 5e-6
    assert error(denoiser(x_t, sigma), denoised, x) < 5e-6
    if not isinstance(scaling, IDDPMScaling):  # whose levels are float32 here and float64 in the network
        assert error(denoiser.residual(x, s[:, 0]), residual, residual) < 1e-11


@scalings
def test_float32_keeps_the_residuals_digits(scaling, rng):
    """Below sigma = 1e-4 a difference d - x_t of float32 tensors would have none left."""
    net = nn.Linear(50, 50)
    sigma = torch.tensor([1e-5, 1e-4, 1e-3, 1.0, 80.0])
    x_t = torch.randn(5, 50, generator=rng)

    def residual(dtype):
        denoiser = Preconditioned(blind(net, dtype), (50,), scaling=scaling)
        return denoiser.residual(x_t.to(dtype), sigma.to(dtype)).double().detach()

    exact, ours = residual(F64), residual(torch.float32)
    assert ((ours - exact).norm(dim=1) / exact.norm(dim=1)).max() < 2e-6


def blind(net, dtype):
    """`net` in `dtype`, blind to the noise level: only what the scaling itself rounds is left."""

    class Blind(nn.Module):
        def forward(self, x, c_noise, class_labels):
            return x @ net.weight.to(dtype).T + net.bias.to(dtype)

    return Blind()


def test_a_learned_variance_is_dropped(rng):
    class TwoHeads(nn.Module):
        def forward(self, x, c_noise, class_labels):
            return torch.cat([2 * x, 1e6 + x], 1)

    class OneHead(nn.Module):
        def forward(self, x, c_noise, class_labels):
            return 2 * x

    x_t, sigma = torch.randn(3, 4, 2, 2, generator=rng), torch.tensor([0.1, 1.0, 10.0])
    two, one = (Preconditioned(net, (4, 2, 2), scaling=IDDPMScaling()) for net in (TwoHeads(), OneHead()))
    torch.testing.assert_close(two(x_t, sigma), one(x_t, sigma), rtol=0, atol=0)


def test_three_times_the_channels_are_refused():
    class ThreeHeads(nn.Module):
        def forward(self, x, c_noise, class_labels):
            return torch.cat([x, x, x], 1)

    with pytest.raises(ValueError, match=r"network output = \[2, 12, 1, 1\]: must be of its input's shape, \[2, 4, 1"):
        Preconditioned(ThreeHeads(), (4, 1, 1))(torch.zeros(2, 4, 1, 1), torch.ones(2))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: EDMScaling(0.0), "sigma_data = 0.0: must be positive"),
        (lambda: VPScaling(beta_d=0.0), "beta_d = 0.0: must be positive"),
        (lambda: VPScaling(beta_min=-1.0), "beta_min = -1.0: must be positive"),
        (lambda: VPScaling(steps=1), "steps = 1: must be at least 2"),
        (lambda: IDDPMScaling(c_1=1.0), r"c_1 = 1.0: must be in \(0, 1\)"),
        (lambda: IDDPMScaling(c_2=0.0), "c_2 = 0.0: must be positive"),
        (lambda: IDDPMScaling(steps=10**9), "steps = 1000000000: must be in 2 … 100000"),
    ],
)
def test_what_cannot_be_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
