"""Algorithm 2 as one would write it from the paper's Listing 1, in plain PyTorch: the reference for simdistill's speed.

Nothing here is slowed down on purpose. It does what such scripts do: three modules and torch's Adam, parameters frozen
by `requires_grad_` as in the listing, fresh samples for either update, independent noise levels, the generator's EMA
by a loop over its parameters, and both losses read every iteration for the log.
"""

import copy

import torch
from torch import Tensor, nn

from simdistill.config.recipes import Recipe
from simdistill.method.noise import NoiseDistribution, sample


class ReferenceLoop:
    """Distils the denoiser `teacher` by SIM with the pseudo-Huber distance; one iteration per `step`.

    The recipe gives noise distributions, weightings, learning rates, batch and EMA, so that both loops do the same job.
    """

    def __init__(self, teacher: nn.Module, recipe: Recipe, shape: tuple[int, ...], classes: int = 0, c: float = 0.03):
        self.recipe, self.shape, self.classes, self.c = recipe, shape, classes, c
        self.teacher = copy.deepcopy(teacher).eval().requires_grad_(False)
        self.online, self.generator = copy.deepcopy(teacher), copy.deepcopy(teacher)
        self.average = copy.deepcopy(teacher).eval().requires_grad_(False)
        self.online_adam = torch.optim.Adam(self.online.parameters(), lr=recipe.online_lr, betas=recipe.betas)
        self.generator_adam = torch.optim.Adam(self.generator.parameters(), lr=recipe.generator_lr, betas=recipe.betas)
        self.rng = torch.Generator().manual_seed(recipe.seed)
        self.iteration = 0

    def step(self) -> dict[str, float]:
        """One iteration; returns both losses."""
        recipe = self.recipe
        self.set_rates()
        online_loss = self.update_online(*self.draw(recipe.online_noise))
        generator_loss = self.update_generator(*self.draw(recipe.generator_noise))
        self.iteration += 1
        decay = recipe.ema[0].decay(recipe.batch, self.iteration * recipe.batch)
        with torch.no_grad():
            for average, p in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                average.copy_(p.lerp(average, decay))
        return {"online_loss": online_loss.item(), "generator_loss": generator_loss.item()}

    def update_online(self, z: Tensor, sigma: Tensor, eps: Tensor, labels: Tensor | None) -> Tensor:
        """Denoising score matching on fresh samples of the generator."""
        self.online.train().requires_grad_(True)
        self.generator.eval().requires_grad_(False)
        with torch.no_grad():
            x_0 = self.generate(self.generator, z, labels)
        x_t = x_0 + per_sample(sigma, z) * eps
        error = self.online(x_t, sigma, labels) - x_0
        loss = (self.recipe.online_weighting(sigma, error) * error.square().flatten(1).sum(1)).mean()
        self.online_adam.zero_grad()
        loss.backward()
        self.online_adam.step()
        return loss

    def update_generator(self, z: Tensor, sigma: Tensor, eps: Tensor, labels: Tensor | None) -> Tensor:
        """Score implicit matching through the frozen teacher and online network."""
        self.online.eval().requires_grad_(False)
        self.generator.train().requires_grad_(True)
        x_0 = self.generate(self.generator, z, labels)
        x_t = x_0 + per_sample(sigma, z) * eps
        d_q = self.teacher(x_t, sigma, labels)
        d_psi = self.online(x_t, sigma, labels)
        y = d_psi - d_q
        slope = y / torch.sqrt(y.square().flatten(1).sum(1) + self.c**2).reshape(-1, *[1] * (y.ndim - 1))
        weight = self.recipe.generator_weighting(sigma, (d_q - x_0).detach())
        loss = (-weight * (slope * (d_psi - x_0)).flatten(1).sum(1)).mean()
        self.generator_adam.zero_grad()
        loss.backward()
        self.generator_adam.step()
        return loss

    def generate(self, network: nn.Module, z: Tensor, labels: Tensor | None) -> Tensor:
        """x_0 = d(sigma_init z, sigma_init)."""
        sigma_init = self.recipe.sigma_init
        return network(sigma_init * z, torch.full((len(z),), sigma_init), labels)

    def draw(self, noise: NoiseDistribution) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """z, sigma, eps and labels of one update."""
        n, rng = self.recipe.batch, self.rng
        labels = torch.randint(self.classes, (n,), generator=rng) if self.classes else None
        z, eps = (torch.randn(n, *self.shape, generator=rng) for _ in range(2))
        return z, sample(noise, n, rng), eps, labels

    def set_rates(self) -> None:
        """Set the learning rates: the recipe's warm-up, and its decay for the generator."""
        recipe = self.recipe
        rise = min(1.0, (self.iteration + 1) / recipe.warmup) if recipe.warmup else 1.0
        fall = 1 - self.iteration / recipe.iterations if recipe.decay == "linear" else 1.0
        self.online_adam.param_groups[0]["lr"] = recipe.online_lr * rise
        self.generator_adam.param_groups[0]["lr"] = recipe.generator_lr * rise * fall


def per_sample(sigma: Tensor, z: Tensor) -> Tensor:
    """`sigma` of shape `[batch]`, to be multiplied with `z`."""
    return sigma.reshape(-1, *[1] * (z.ndim - 1))
