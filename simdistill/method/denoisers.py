"""Denoisers d(x_t, sigma) ≈ E[x_0 | x_t], x_t = x_0 + sigma eps: the protocol, preconditioned networks, mixtures.

The losses need differences like d - x_0, of the size of sigma, between tensors of the size of the data: below
sigma = 1e-4, float32 would lose them. They are therefore computed from the *residual* d(x_t, sigma) - x_t: it equals
sigma² times the score [B.3], is itself small, and `Preconditioned` and `GaussianMixture` compute it without
cancellation.
"""

import math
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from simdistill.method.preconditioning import EDMScaling, Scaling
from simdistill.method.shapes import Condition, Data, Sigma, are_labels, label_error, like
from simdistill.method.text import Text, TextInput
from simdistill.support.checks import require


@runtime_checkable
class Denoiser(Protocol):
    """A teacher: any callable that returns the denoised x_0 for x_t = x_0 + sigma eps."""

    def __call__(self, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
        """d(x_t, sigma), in the shape of `x_t`; `sigma` `[batch]`; `condition` with one row per sample, or None."""
        ...


@runtime_checkable
class ResidualDenoiser(Protocol):
    """A denoiser that can also return d(x_t, sigma) - x_t without cancellation."""

    def residual(self, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
        """d(x_t, sigma) - x_t, the shape of `x_t`."""
        ...


def residual(denoiser: Denoiser, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
    """d(x_t, sigma) - x_t = sigma² s(x_t) [B.3]: by the denoiser's method if it has one, else by subtraction.

    Raises `ValueError` unless the denoiser's output has the shape of `x_t`.
    """
    if isinstance(denoiser, ResidualDenoiser):
        difference = denoiser.residual(x_t, sigma, condition)
        shape = difference.shape
    else:
        x_0 = denoiser(x_t, sigma, condition)
        if not isinstance(x_0, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]  (a user's own code)
            raise ValueError(f"denoiser output = a {type(x_0).__name__}: must be one tensor, the denoised x_0")  # noqa: TRY004
        shape, difference = x_0.shape, (x_0 - x_t if x_0.shape == x_t.shape else x_0)
    require(shape == x_t.shape, "denoiser output", list(shape), f"of its input's shape, {list(x_t.shape)}")
    return difference


def calls(denoiser: object) -> int:
    """Network evaluations per call of `denoiser`: its attribute `nfe` (which guidance has), or 1."""
    return getattr(denoiser, "nfe", 1)


def score(denoiser: Denoiser, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
    """s(x_t) = (d(x_t, sigma) - x_t) / sigma² [B.3], the score of the distribution of x_t."""
    return residual(denoiser, x_t, sigma, condition) / like(sigma, x_t) ** 2


def denoised_from_score(s: Data, x_t: Data, sigma: Sigma) -> Data:
    """d = x_t + sigma² s, the inverse of `score` [B.3]."""
    return x_t + like(sigma, x_t) ** 2 * s


class Preconditioned(nn.Module):
    """A network F as a denoiser: d(x, sigma) = c_skip x + c_out F(c_in x, c_noise) (Karras et al. 2022, Table 1).

    `scaling` gives the four coefficients: EDM's, or those of the process that the network was trained for. The network
    is called as `model(x, c_noise, class_labels)` with one-hot labels `[batch, classes]`, with None if `classes` is 0,
    or with encoded prompts if its attribute `text` describes some; the attribute `model` has EDM's name, so that
    published state dicts fit. If the network returns twice the channels of x, the second half, a learned variance
    (Nichol & Dhariwal 2021), is dropped. `shape` is the shape of one sample, and [`sigma_min`, `sigma_max`] the range
    of noise levels that the network was trained for. The `mean`, a number or a sample, is subtracted from x first, for
    data that are not centred at zero.
    """

    def __init__(
        self,
        model: nn.Module,
        shape: tuple[int, ...],
        classes: int = 0,
        scaling: Scaling = EDMScaling(),  # noqa: B008  (frozen)
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        mean: Tensor | float = 0.0,
    ) -> None:
        super().__init__()
        require(0 < sigma_min < sigma_max, "sigma_min", sigma_min, "above 0 and below sigma_max")
        self.model, self.shape, self.classes = model, tuple(shape), classes
        self.scaling, self.sigma_min, self.sigma_max = scaling, sigma_min, sigma_max
        self.mean: Tensor | float
        if isinstance(mean, Tensor):
            self.register_buffer("mean", mean)  # stored with the weights
        else:
            self.mean = mean
        self._off_centre = isinstance(mean, Tensor) or mean != 0

    def forward(self, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
        """The denoised x_0; `condition` is labels `[batch]`, encoded prompts or None, depending on the network."""
        return x_t + self.residual(x_t, sigma, condition)

    def residual(self, x_t: Data, sigma: Sigma, condition: Condition = None, *labels: Tensor) -> Data:
        """d(x_t, sigma) - x_t = c_out F - (1 - c_skip) (x_t - mean), accurate relative to sigma.

        Further `labels` are passed to the network: in pretraining, the parameters of the augmentation.
        """
        x, c = x_t - self.mean if self._off_centre else x_t, self.scaling(sigma)
        f = self.model(like(c.c_in, x) * x, c.c_noise, self._given(condition, x), *labels)
        if f.ndim == x.ndim and f.shape[1] == 2 * x.shape[1]:
            f = f[:, : x.shape[1]]
        require(f.shape == x.shape, "network output", list(f.shape), f"of its input's shape, {list(x.shape)}")
        return like(c.c_out, x) * f - like(c.one_minus_c_skip, x) * x

    @property
    def text(self) -> TextInput | None:
        """The form of the encoded prompts that the network takes, or None."""
        return getattr(self.model, "text", None)

    def _given(self, condition: Condition, x_t: Data) -> Tensor | Text | None:
        if self.text is not None:
            require(isinstance(condition, Text), "condition", condition, "encoded prompts, which the network expects")
            return condition
        if self.classes == 0:
            return None
        if not are_labels(condition):
            raise label_error(condition, self.classes)
        # not one_hot, which would synchronise with the device to check the labels' range; nor an index, which takes -1
        rows, labels = torch.eye(self.classes, dtype=x_t.dtype, device=x_t.device), condition.to(x_t.device)
        if torch.compiler.is_compiling():
            return rows.index_select(0, labels)
        try:
            return rows.index_select(0, labels)
        except IndexError as error:  # on a GPU it is a failed assertion of the device's
            raise label_error(condition, self.classes) from error


class GaussianMixture:
    """The exact denoiser of Σ_k w_k N(m_k, C_k); with one component, of a Gaussian.

    With C_k + sigma² I the component's covariance at level sigma and r_k(x_t) its posterior probability,
    d(x_t, sigma) = x_t - sigma² Σ_k r_k (C_k + sigma² I)⁻¹ (x_t - m_k). Differentiable in x_t, means and covariances,
    so that it can also be the denoiser d_p of a Gaussian generator in closed form.

    `means` `[components, dim]`; `covariances` `[components, dim, dim]`, or `[1, dim, dim]` if all are equal, which is
    several times as fast; `weights` `[components]` (equal if None).
    """

    def __init__(
        self,
        means: Float[Tensor, "components dim"],
        covariances: Float[Tensor, "#components dim dim"],
        weights: Float[Tensor, " components"] | None = None,
    ) -> None:
        self.means, self.covariances = means, covariances
        shares = means.new_ones(len(means)) if weights is None else weights
        require(bool((shares > 0).all()), "weights", shares.tolist(), "positive")
        self.weights = (shares / shares.sum()).to(means)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample, `(dim,)`."""
        return (self.means.shape[1],)

    def __call__(self, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
        """E[x_0 | x_t]; the condition is ignored."""
        return x_t + self.residual(x_t, sigma, condition)

    def residual(self, x_t: Data, sigma: Sigma, condition: Condition = None) -> Data:
        """-sigma² Σ_k r_k (C_k + sigma² I)⁻¹ (x_t - m_k)."""
        whitened, log_share = self._components(x_t, sigma)
        return -(like(sigma, x_t) ** 2) * (log_share.softmax(1)[..., None] * whitened).sum(1)

    def log_density(self, x_t: Data, sigma: Sigma) -> Float[Tensor, " batch"]:
        """The log density of x_t at level sigma, in nats; its gradient in x_t is the score."""
        return self._components(x_t, sigma)[1].logsumexp(1)

    def sample(self, n: int, rng: torch.Generator) -> Float[Tensor, "n dim"]:
        """`n` independent draws of x_0."""
        k = torch.multinomial(self.weights, n, replacement=True, generator=rng)
        eps = torch.randn(n, self.means.shape[1], generator=rng, dtype=self.means.dtype)
        factors = torch.linalg.cholesky(self.covariances).expand(len(self.means), -1, -1)
        return self.means[k] + (factors[k] @ eps[..., None])[..., 0]

    def _components(
        self, x_t: Data, sigma: Sigma
    ) -> tuple[Float[Tensor, "batch components dim"], Float[Tensor, "batch components"]]:
        """(C_k + sigma² I)⁻¹ (x_t - m_k) and ln w_k N(x_t; m_k, C_k + sigma² I)."""
        dim = self.means.shape[1]
        identity = torch.eye(dim, dtype=x_t.dtype, device=x_t.device)
        covariance = self.covariances.to(x_t) + (sigma**2)[:, None, None, None] * identity
        factor = torch.linalg.cholesky(covariance)
        offset = x_t[:, None, :] - self.means.to(x_t)
        alike = offset.unflatten(1, (len(self.covariances), -1))  # solve once per covariance
        whitened = torch.cholesky_solve(alike.mT, factor).mT.flatten(1, 2)
        log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        square = (offset * whitened).sum(-1) + log_det + dim * math.log(2 * math.pi)
        return whitened, self.weights.to(x_t).log() - square / 2
