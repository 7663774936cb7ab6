"""Networks that predict the noise, the velocity, the flow, the image or EDM's F, as denoisers of x = x_0 + sigma eps.

The state of a variance-preserving process is x / √(1 + sigma²), that of a rectified flow x / (1 + sigma); each adapter
rescales its input, converts the noise level to the network's own time, and returns the residual d(x, sigma) - x without
cancellation, unless the network predicts the image itself. Each is exact if the network is.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from simdistill.method.preconditioning import EDMScaling
from simdistill.method.shapes import Condition, Data, Sigma, like
from simdistill.support.checks import require

Network: TypeAlias = Callable[[Tensor, Tensor, Condition], Tensor]
"""network(state, time, condition): `time` of shape `[batch]`, in the network's own unit."""


class NearestTime:
    """sigma ↦ argmin_j |u_j - sigma|, the nearest level of a discrete process, for networks of times 0 … n - 1 [B.13].

    `sigmas` are its levels u_j in the order of its times; for cumulative products a_t of a variance-preserving process
    they are √((1 - a_t)/a_t).
    """

    def __init__(self, sigmas: Tensor) -> None:
        self.sigmas = sigmas.double()

    def __call__(self, sigma: Sigma) -> Tensor:
        """The nearest time, int64 `[batch]`."""
        return (sigma.double()[:, None] - self.sigmas.to(sigma.device)).abs().argmin(1)


class EpsilonPrediction(nn.Module):
    """d(x, sigma) = x - sigma eps(x/√(1+sigma²)) for a variance-preserving noise predictor (Ho et al. 2020).

    `time` gives the network's time for a noise level, for example `NearestTime`.
    """

    def __init__(self, network: Network, time: Callable[[Sigma], Tensor]) -> None:
        super().__init__()
        self.network, self.time = network, time

    def forward(self, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
        """The denoised x_0."""
        return x_t + self.residual(x_t, sigma, condition)

    def residual(self, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
        """d(x, sigma) - x = -sigma eps."""
        state = x_t / like(torch.sqrt(1 + sigma**2), x_t)
        return -like(sigma, x_t) * _predict(self.network, state, self.time(sigma), condition)


class VelocityPrediction(nn.Module):
    """d(x, sigma) = x/(1+sigma²) - sigma/√(1+sigma²) v(x/√(1+sigma²)), variance preserving (Salimans & Ho 2022).

    `time` gives the network's time for a noise level, for example `NearestTime`.
    """

    def __init__(self, network: Network, time: Callable[[Sigma], Tensor]) -> None:
        super().__init__()
        self.network, self.time = network, time

    def forward(self, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
        """The denoised x_0."""
        return x_t + self.residual(x_t, sigma, condition)

    def residual(self, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
        """d(x, sigma) - x = -sigma²/(1+sigma²) x - sigma/√(1+sigma²) v."""
        scale = torch.sqrt(1 + sigma**2)
        v = _predict(self.network, x_t / like(scale, x_t), self.time(sigma), condition)
        return -like(sigma**2 / scale**2, x_t) * x_t - like(sigma / scale, x_t) * v


class SamplePrediction(nn.Module):
    """d(x, sigma) = x_0(x/√(1+sigma²)) for a variance-preserving predictor of the image (Salimans & Ho 2022).

    `time` gives the network's time for a noise level, for example `NearestTime`. The residual is left to subtraction:
    what the network has rounded off is unrecoverable.
    """

    def __init__(self, network: Network, time: Callable[[Sigma], Tensor]) -> None:
        super().__init__()
        self.network, self.time = network, time

    def forward(self, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
        """The denoised x_0, as predicted by the network."""
        state = x_t / like(torch.sqrt(1 + sigma**2), x_t)
        return _predict(self.network, state, self.time(sigma), condition)


class FlowPrediction(nn.Module):
    """d(x, sigma) = (x - sigma u(x/(1+sigma), s)) / (1+sigma), s = sigma/(1+sigma), of x_s = (1-s) x_0 + s eps.

    `u` predicts eps - x_0 (flow matching, Lipman et al. 2023; rectified flow, Liu et al. 2023); it is called with
    `steps` times s, in (0, 1) by default: a network whose times are 0 … 1000 takes `steps=1000`.
    """

    def __init__(self, network: Network, steps: float = 1.0) -> None:
        super().__init__()
        require(steps > 0, "steps", steps, "positive: the network's time of pure noise")
        self.network, self.steps = network, steps

    def forward(self, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
        """The denoised x_0."""
        return x_t + self.residual(x_t, sigma, condition)

    def residual(self, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
        """d(x, sigma) - x = -sigma/(1+sigma) (x + u)."""
        u = _predict(self.network, x_t / like(1 + sigma, x_t), self.steps * (sigma / (1 + sigma)), condition)
        return -like(sigma / (1 + sigma), x_t) * (x_t + u)


class EDMPrediction(nn.Module):
    """d(x, sigma) = c_skip x ± c_out F(c_in x, ln(sigma)/4), in the preconditioning of Karras et al. (2022).

    `negated` takes the minus: of a velocity v = -F. With sigma_data = 1 that is `VelocityPrediction` at ln(sigma)/4.
    """

    def __init__(self, network: Network, scaling: EDMScaling, negated: bool = False) -> None:
        super().__init__()
        self.network, self.scaling, self.negated = network, scaling, negated

    def forward(self, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
        """The denoised x_0."""
        return x_t + self.residual(x_t, sigma, condition)

    def residual(self, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
        """d(x, sigma) - x = ± c_out F - (1 - c_skip) x."""
        c = self.scaling(sigma)
        f = _predict(self.network, like(c.c_in, x_t) * x_t, c.c_noise, condition)
        c_out = -c.c_out if self.negated else c.c_out
        return like(c_out, x_t) * f - like(c.one_minus_c_skip, x_t) * x_t


def _predict(network: Network, state: Data, time: Tensor, condition: Condition) -> Tensor:
    prediction = network(state, time, condition)
    shapes = f"of its input's shape, {list(state.shape)}; drop a learned variance"
    require(prediction.shape == state.shape, "network output", list(prediction.shape), shapes)
    return prediction
