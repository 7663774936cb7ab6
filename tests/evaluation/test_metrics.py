import math

import numpy as np
import ot
import pytest
import scipy.linalg
import scipy.spatial.distance
import scipy.stats
import torch
from drawn import covariance, normal, orthogonal
from prdc import compute_prdc
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from simdistill.evaluation.metrics import (
    Moments,
    ball_radii,
    energy_distance,
    frechet_distance,
    kernel_distance,
    precision_recall,
    sliced_wasserstein,
)


class Identity(torch.nn.Module):
    def __init__(self, num_features):
        super().__init__()
        self.num_features = num_features

    def forward(self, x):
        return x


# --- Fréchet ----------------------------------------------------------------------------------------------------------


def test_moments_are_the_mean_and_the_unbiased_covariance():
    x = normal(7, 3, dtype=torch.float32)
    moments = Moments.of(x)
    assert moments.mean.dtype == moments.covariance.dtype == torch.float64
    np.testing.assert_allclose(moments.mean, x.double().numpy().mean(0), rtol=1e-14)
    np.testing.assert_allclose(moments.covariance, np.cov(x.double().numpy().T), rtol=1e-12)


def test_frechet_of_diagonal_gaussians_is_that_of_their_axes():
    mean, std = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([1.0, 3.0, 0.2])
    other_mean, other_std = torch.tensor([0.0, 1.0, 0.5]), torch.tensor([2.0, 3.0, 1.2])
    value = frechet_distance(Moments(mean, std.square().diag()), Moments(other_mean, other_std.square().diag()))
    assert value == pytest.approx(1 + 9 + 0 + 1 + 0 + 1, rel=1e-6)


def test_frechet_of_commuting_covariances():
    q = orthogonal(4)
    a, b = torch.tensor([4.0, 1.0, 9.0, 0.0]).double(), torch.tensor([1.0, 16.0, 9.0, 25.0]).double()
    mean = torch.zeros(4, dtype=torch.float64)
    value = frechet_distance(Moments(mean, q @ a.diag() @ q.T), Moments(mean + 2, q @ b.diag() @ q.T))
    assert value == pytest.approx(16 + 1 + 9 + 0 + 25, rel=1e-12)


@pytest.mark.parametrize("d", [1, 2, 16])
def test_frechet_agrees_with_the_matrix_root(d):
    a, b = covariance(d, 1), covariance(d, 2)
    mean, other = normal(2, d, 3)
    root = scipy.linalg.sqrtm((a @ b).numpy())
    expected = float((mean - other).square().sum() + a.trace() + b.trace()) - 2 * np.trace(root).real
    assert frechet_distance(Moments(mean, a), Moments(other, b)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("n", "m", "d"), [(400, 300, 5), (64, 80, 32)])
def test_frechet_agrees_with_torchmetrics(n, m, d):
    x, y = normal(n, d, 1) @ covariance(d, 2) + 1, normal(m, d, 3)
    theirs = FrechetInceptionDistance(feature=Identity(d))
    theirs.update(y, real=True)
    theirs.update(x, real=False)
    assert frechet_distance(Moments.of(x), Moments.of(y)) == pytest.approx(float(theirs.compute()), rel=1e-9)


def test_frechet_with_fewer_samples_than_dimensions_is_that_of_the_subspace():
    # 20 points in 5 dimensions, mapped into 60 by an isometry: nothing changes, though both covariances are singular
    isometry = orthogonal(60)[:5]
    x, y = normal(20, 5, 1) * 3, normal(20, 5, 2) + 1
    small = frechet_distance(Moments.of(x), Moments.of(y))
    assert frechet_distance(Moments.of(x @ isometry), Moments.of(y @ isometry)) == pytest.approx(small, rel=1e-11)


def test_frechet_of_orthogonal_subspaces_adds_the_traces():
    q = orthogonal(40)
    a, b = q[:, :3] @ q[:, :3].T, 4 * q[:, 3:9] @ q[:, 3:9].T
    mean = torch.zeros(40, dtype=torch.float64)
    assert frechet_distance(Moments(mean, a), Moments(mean, b)) == pytest.approx(3 + 24, rel=1e-12)


def test_frechet_of_one_set_with_itself_is_zero_also_when_its_covariance_is_singular():
    for x in (normal(10, 50), normal(100, 5), torch.ones(4, 3)):
        moments = Moments.of(x)
        assert frechet_distance(moments, moments) == pytest.approx(0, abs=1e-12)


def test_frechet_of_two_collapsed_sets_is_their_squared_distance():
    assert frechet_distance(Moments.of(torch.ones(4, 3)), Moments.of(torch.zeros(5, 3))) == pytest.approx(3)


# --- kernel -----------------------------------------------------------------------------------------------------------


def test_kernel_distance_by_hand():
    # one dimension: k(0, 1) = 1, k(2, 3) = 7³, and the cross terms are 1, 1, 3³, 4³
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]])
    assert kernel_distance(x, y) == pytest.approx(1 + 343 - 2 * (1 + 1 + 27 + 64) / 4)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
def test_kernel_distance_agrees_with_torchmetrics():
    x, y = normal(150, 12, 1) * 1.3, normal(150, 12, 2)
    theirs = KernelInceptionDistance(feature=Identity(12), subsets=1, subset_size=150)
    theirs.update(y, real=True)
    theirs.update(x, real=False)
    assert kernel_distance(x, y) == pytest.approx(float(theirs.compute()[0]), rel=1e-9)


def test_kernel_distance_is_unbiased_at_unequal_sizes():
    # averaged over all subsets of two small populations it is the distance of the populations; a V-statistic is not
    x, y = normal(5, 2, 1), normal(4, 2, 2) + 1
    every = [
        [kernel_distance(x[i], y[j]) for j in torch.combinations(torch.arange(4), 3)]
        for i in torch.combinations(torch.arange(5), 2)
    ]
    assert np.mean(every) == pytest.approx(kernel_distance(x, y), rel=1e-12)


def test_kernel_distance_of_a_set_and_its_copy_is_negative():
    x = normal(30, 4)
    k = (x @ x.T / 4 + 1) ** 3
    expected = 2 * ((k.sum() - k.trace()) / (30 * 29) - k.mean())
    assert kernel_distance(x, x.clone()) == pytest.approx(float(expected), rel=1e-10)
    assert expected < 0


# --- precision, recall, density, coverage -----------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m", "k"), [(120, 120, 5), (90, 150, 3), (60, 40, 1)])
def test_precision_recall_agrees_with_prdc(n, m, k):
    x, y = 0.7 * normal(n, 4, 1) + 0.5, normal(m, 4, 2)
    theirs = compute_prdc(real_features=y.numpy(), fake_features=x.numpy(), nearest_k=k)
    ours = precision_recall(x, y, k)
    assert vars(ours) == pytest.approx(theirs, rel=1e-12)
    assert min(vars(ours).values()) > 0
    assert max(ours.precision, ours.recall, ours.coverage) < 1


def test_radii_at_hand_are_those_that_would_be_computed():
    x, y = 0.7 * normal(50, 4, 1) + 0.5, normal(60, 4, 2)
    assert precision_recall(x, y, 3, ball_radii(y, 3)) == precision_recall(x, y, 3)
    assert precision_recall(x, y, 3, ball_radii(y, 9)).precision > precision_recall(x, y, 3).precision
    assert ball_radii(torch.tensor([[0.0], [1.0], [3.0], [7.0]]), 1).tolist() == [1, 1, 2, 4]


def test_precision_recall_by_hand():
    # references 0, 1, 3, 7 have the radii 1, 1, 2, 4 at k = 1 (closed balls), samples 2 and 2.5 the radius 0.5
    x, y = torch.tensor([[2.0], [2.5]]), torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    result = precision_recall(x, y, k=1)
    assert (result.precision, result.recall) == (1.0, 0.25)
    assert result.density == pytest.approx((2 + 1) / 2)  # 2 lies in the balls of 1 and 3, 2.5 in that of 3
    assert result.coverage == 0.5


def test_precision_recall_of_a_set_with_itself():
    # whole numbers, so that no rounding decides on the boundary of the closed balls, which hold k + 1 of the line
    x = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    result = precision_recall(x, x.clone(), k=1)
    assert (result.precision, result.recall, result.coverage) == (1.0, 1.0, 1.0)
    assert result.density == pytest.approx((1 + 1 + 2 + 1 + 2 + 1) / 4)


def test_precision_recall_tells_a_collapsed_generator_from_a_scattered_one():
    y = normal(200, 3)
    collapsed, scattered = precision_recall(0.05 * normal(200, 3, 1), y), precision_recall(5 * normal(200, 3, 1), y)
    assert collapsed.precision > 0.95
    assert collapsed.recall < 0.05
    assert collapsed.density > 1
    assert scattered.precision < 0.2
    assert scattered.recall > 0.8


# --- energy -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m"), [(50, 50), (30, 71)])
def test_energy_distance_is_the_square_of_scipys(n, m):
    x, y = normal(n, 1, 1) + 0.7, normal(m, 1, 2)
    theirs = scipy.stats.energy_distance(x[:, 0].numpy(), y[:, 0].numpy())
    assert energy_distance(x, y) == pytest.approx(theirs**2, rel=1e-6)


def test_energy_distance_agrees_with_all_pairs_in_many_dimensions():
    x, y = normal(40, 6, 1) * 2, normal(25, 6, 2)
    between, within, others = (scipy.spatial.distance.cdist(*pair).mean() for pair in [(x, y), (x, x), (y, y)])
    assert energy_distance(x, y) == pytest.approx(2 * between - within - others, rel=1e-6)


def test_energy_distance_of_two_collapsed_sets_is_twice_their_distance():
    x, y = torch.zeros(3, 2), torch.tensor([[3.0, 4.0]]).repeat(5, 1)
    assert energy_distance(x, y) == pytest.approx(10)


def test_energy_distance_far_from_the_origin():
    # a shift that float64 represents exactly: the expansion of the square must not cancel
    x, y = (normal(30, 2, 1) * 64).round() / 64, (normal(30, 2, 2) * 64).round() / 64 + 1
    assert energy_distance(x + 2**26, y + 2**26) == pytest.approx(energy_distance(x, y), rel=1e-6)


# --- sliced Wasserstein -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m"), [(40, 40), (40, 60), (31, 50)])
def test_sliced_wasserstein_agrees_with_pot_on_the_same_directions(n, m):
    x, y = normal(n, 3, 1) + 0.3, 2 * normal(m, 3, 2)
    directions = torch.nn.functional.normalize(normal(20, 3, seed=7), dim=1)
    theirs = ot.sliced_wasserstein_distance(x.numpy(), y.numpy(), projections=directions.T.numpy(), p=2)
    assert sliced_wasserstein(x, y, projections=20, seed=7) == pytest.approx(theirs, rel=1e-9)


def test_sliced_wasserstein_in_one_dimension_needs_no_direction():
    # quantiles of {0, 1} and {0, 1, 2} on the sixths: 0 0 0 1 1 1 and 0 0 1 1 2 2
    x, y = torch.tensor([[1.0], [0.0]]), torch.tensor([[2.0], [0.0], [1.0]])
    assert sliced_wasserstein(x, y, projections=1) == pytest.approx(math.sqrt((0 + 0 + 1 + 0 + 1 + 1) / 6))
    assert sliced_wasserstein(x, y, projections=9, seed=3) == pytest.approx(math.sqrt(0.5))


def test_sliced_wasserstein_of_a_translated_set():
    # E (θ·t)² = ‖t‖²/d over the sphere
    x, shift = normal(20, 4), torch.tensor([3.0, 0.0, 4.0, 0.0]).double()
    assert sliced_wasserstein(x, x + shift, projections=20_000) == pytest.approx(5 / 2, rel=0.02)


def test_sliced_wasserstein_repeats_with_its_seed_and_only_then():
    x, y = normal(30, 3, 1), normal(30, 3, 2)
    assert sliced_wasserstein(x, y, 5) == sliced_wasserstein(x, y, 5, seed=0)
    assert sliced_wasserstein(x, y, 5) != sliced_wasserstein(x, y, 5, seed=1)
