import copy
import math

import pytest
import torch

from simdistill.method.denoisers import GaussianMixture, Preconditioned
from simdistill.method.generator import Generator
from simdistill.method.guidance import Guided
from simdistill.networks.mlp import MLP


def teacher(classes=3):
    """A small conditional denoiser whose last layer is not zero, so that the network speaks."""
    torch.manual_seed(0)
    net = MLP((1, 2, 2), width=8, depth=1, label_dim=classes)
    torch.nn.init.normal_(net.last.weight)
    return Preconditioned(net, (1, 2, 2), classes)


class Exact(torch.nn.Module):
    """A closed-form denoiser as a module."""

    def __init__(self, denoiser):
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x_t, sigma, condition=None):
        return self.denoiser(x_t, sigma, condition)


@pytest.mark.parametrize("level", [2.5, 0.5, 80.0])
def test_the_generator_is_the_denoiser_asked_once_at_its_level(level, rng):
    denoiser, z, labels = teacher(), torch.randn(5, 1, 2, 2, generator=rng), torch.tensor([0, 1, 2, 1, 0])
    x_0 = Generator(denoiser, (level,))(z, labels)
    expected = denoiser(level * z, level * torch.ones(5), labels)
    torch.testing.assert_close(x_0, expected, rtol=0, atol=0)
    assert not torch.equal(x_0, Generator(denoiser, (level,))(z, labels.flip(0) + torch.tensor([1, 0, -1, 1, 1])))


def test_by_default_the_level_is_that_of_table_5():
    assert Generator(teacher()).levels == (2.5,)


def test_the_generator_of_a_gaussian_has_the_closed_forms_law(rng):
    """d(sigma z, sigma) of N(m, s²) is m + s²/(s² + sigma²) (sigma z - m): normal, mean (1 - k) m, std k sigma."""
    exact = GaussianMixture(torch.tensor([[1.0]], dtype=torch.float64), torch.tensor([[[0.25]]], dtype=torch.float64))
    z = torch.randn(7, 1, generator=rng, dtype=torch.float64)
    k = 0.25 / (0.25 + 2.5**2)
    torch.testing.assert_close(Generator(Exact(exact), (2.5,))(z), (1 - k) * 1.0 + k * 2.5 * z)


def test_a_generator_starts_from_its_denoisers_parameters_and_leaves_the_original_alone(rng):
    denoiser = teacher()
    generator = Generator(copy.deepcopy(denoiser))
    state = generator.state_dict()
    assert list(state) == [f"denoiser.{name}" for name in denoiser.state_dict()]
    for name, tensor in denoiser.state_dict().items():
        torch.testing.assert_close(state[f"denoiser.{name}"], tensor, rtol=0, atol=0)
    before = copy.deepcopy(denoiser.state_dict())
    generator(torch.randn(4, 1, 2, 2, generator=rng), torch.tensor([0, 1, 2, 0])).sum().backward()
    torch.optim.SGD(generator.parameters(), lr=1.0).step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in denoiser.state_dict().items())
    assert not torch.equal(generator.denoiser.model.last.weight, denoiser.model.last.weight)


def test_a_few_levels_are_eulers_steps_along_the_probability_flow(rng):
    """Of N(m, s²) a step to sigma' is x' = m + (x - m) (s² + sigma sigma') / (s² + sigma²), the last one to 0."""
    exact = GaussianMixture(torch.tensor([[1.0]], dtype=torch.float64), torch.tensor([[[0.25]]], dtype=torch.float64))
    z, levels = torch.randn(7, 1, generator=rng, dtype=torch.float64), (9.0, 2.5, 0.4)
    expected = 9.0 * z
    for level, following in [(9.0, 2.5), (2.5, 0.4), (0.4, 0.0)]:
        expected = 1.0 + (expected - 1.0) * (0.25 + level * following) / (0.25 + level**2)
    torch.testing.assert_close(Generator(Exact(exact), levels)(z), expected, rtol=1e-12, atol=0)


def test_a_generator_knows_its_evaluations():
    assert Generator(teacher()).nfe == 1
    assert Generator(teacher(), (80.0, 2.5, 0.5)).nfe == 3
    assert Generator(Guided(teacher(), torch.tensor([2]), 3.0), (80.0, 2.5)).nfe == 4


@pytest.mark.parametrize("levels", [(0.0,), (-2.5,), (), (1.0, 2.0), (2.5, 2.5), (2.5, 0.0), (math.nan,)])
def test_levels_must_be_positive_and_fall(levels):
    with pytest.raises(ValueError, match=r"^levels = \(.*\): must be "):
        Generator(teacher(), levels)
