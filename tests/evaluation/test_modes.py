"""How samples spread over modes, on samples made up for it."""

import math
from dataclasses import replace

import pytest
import torch

from simdistill.data.densities import DENSITIES, gaussians_25
from simdistill.evaluation.modes import modes
from simdistill.evaluation.quality import evaluate, reference_for
from simdistill.evaluation.sampling import Sampler
from simdistill.method.denoisers import GaussianMixture
from simdistill.teachers.loading import load_teacher

TWO = GaussianMixture(torch.tensor([[0.0, 0.0], [10.0, 0.0]]), torch.eye(2)[None], torch.tensor([3.0, 1.0]))


def at(*points):
    return torch.tensor(points, dtype=torch.float64)


def test_samples_on_the_modes_by_their_weights_are_perfect():
    found = modes(at((0, 0), (1, 0), (0, 1), (10, 1)), TWO)
    assert found.masses.tolist() == pytest.approx([0.75, 0.25])
    assert (found.found, found.within, found.deviation) == (2, 1.0, pytest.approx(0.0, abs=1e-12))


@pytest.mark.parametrize(("x", "within"), [(3.9, 1.0), (4.1, 0.0), (5.9, 0.0), (6.1, 1.0)])
def test_a_mode_reaches_four_standard_deviations(x, within):
    assert modes(at((x, 0.0)), TWO).within == pytest.approx(within)


def test_masses_far_from_every_mode_belong_to_the_nearest_but_find_nothing():
    found = modes(at((0, 0), (0, 0), (0, 0), (10, 5)), TWO)
    assert found.masses.tolist() == pytest.approx([0.75, 0.25])
    assert (found.found, found.within) == (1, 0.75)


def test_a_lost_mode_and_one_that_has_twice_its_weight():
    found = modes(at((0, 0), (10, 0)), TWO)
    assert found.deviation == pytest.approx(1.0)  # half instead of a quarter
    lost = modes(at((0, 0), (1, 1)), TWO)
    assert (lost.found, lost.deviation) == (1, pytest.approx(1.0))  # none of a quarter; the other has 4/3 of its own


def test_a_mode_is_found_by_a_tenth_of_its_weight():
    crowd = [(0.0, 0.0)] * 39
    assert modes(at(*crowd, (10.0, 0.0)), TWO).found == 2  # 1 in 40 is a tenth of a quarter
    assert modes(at(*crowd, *crowd, (10.0, 0.0)), TWO).found == 1


def test_the_width_of_a_mode_is_its_own_covariances():
    mixture = GaussianMixture(at((0, 0), (100, 0)), torch.stack([at((1, 0), (0, 0.01)), at((0.01, 0), (0, 1))]))
    found = modes(at((3, 0), (0, 3), (100, 3), (103, 0)), mixture)
    assert (found.within, found.found) == (0.5, 2)


@pytest.mark.parametrize("name", list(DENSITIES))
def test_a_densitys_own_samples_find_all_modes_in_their_weights(name, rng):
    """Overlapping components, too: the mean of the posterior shares is the weight."""
    mixture, n = DENSITIES[name](), 40_000
    found = modes(mixture.sample(n, rng), mixture)
    k = len(mixture.means)
    assert found.found == k
    assert found.within >= 1 - math.exp(-8) - 4 * math.sqrt(math.exp(-8) / n)  # 1 - P(χ²₂ > 16)
    assert found.deviation < 4.5 * math.sqrt((k - 1) / n)
    assert float(found.masses.sum()) == pytest.approx(1)


def test_what_is_no_sample_of_the_mixture_is_refused():
    with pytest.raises(ValueError, match=r"samples.shape = \[5, 3\]: must be \[n, 2\]"):
        modes(torch.zeros(5, 3), gaussians_25())
    with pytest.raises(ValueError, match="samples = 'not finite'"):
        modes(torch.full((5, 2), math.nan), gaussians_25())


def test_modes_are_among_the_figures_of_an_exact_mixtures_student():
    teacher = load_teacher("gaussians-8")
    middle = float(teacher.denoiser.means.norm(dim=1).mean())

    samplers = {"it": Sampler(lambda z, rows: torch.tensor([middle, 0.0]) + 0.05 * z, nfe=1)}
    found = evaluate(samplers, teacher, reference_for(teacher, 500), samples=500, seeds=2)["it"]
    assert found["modes_found"]["values"] == [1.0, 1.0]
    assert found["within_4_sigma"]["mean"] > 0.99
    assert found["mass_deviation"]["mean"] == pytest.approx(7.0)  # all of the mass, instead of an eighth
    others = replace(reference_for(teacher, 500), mixture=None)
    assert "modes_found" not in evaluate(samplers, teacher, others, samples=500, seeds=1)["it"]
