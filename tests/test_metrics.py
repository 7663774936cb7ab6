import math

import numpy as np
import ot
import pytest
import scipy.linalg
import scipy.spatial.distance
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prdc import compute_prdc
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from simdistill.evaluation import metrics
from simdistill.evaluation.metrics import (
    Moments,
    ball_radii,
    energy_distance,
    frechet_distance,
    kernel_distance,
    precision_recall,
    sliced_wasserstein,
)

ON_FEATURES = [
    lambda x, y: frechet_distance(Moments.of(x), Moments.of(y)),
    kernel_distance,
    lambda x, y: precision_recall(x, y).recall,
    energy_distance,
    sliced_wasserstein,
]
NAMES = ["frechet", "kernel", "precision_recall", "energy", "sliced"]
every_metric = pytest.mark.parametrize("metric", ON_FEATURES, ids=NAMES)


def normal(n, d, seed=0, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def orthogonal(d, seed=0):
    return torch.linalg.qr(normal(d, d, seed)).Q


def covariance(d, seed=0):
    factor = normal(d, d, seed)
    return factor @ factor.T + 0.1 * torch.eye(d, dtype=torch.float64)


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


# --- what holds for all -----------------------------------------------------------------------------------------------

quick = settings(max_examples=15, deadline=None, derandomize=True)
seeds = st.integers(0, 10**6)
offsets = st.floats(-50, 50)


@pytest.mark.parametrize(
    "metric", [ON_FEATURES[0], ON_FEATURES[2], energy_distance], ids=["frechet", "recall", "energy"]
)
@quick
@given(seed=seeds, offset=offsets)
def test_rigid_motions_change_nothing(metric, seed, offset):
    x, y, q = normal(30, 4, seed) * 1.5, normal(25, 4, seed + 1), orthogonal(4, seed + 2)
    assert metric(x @ q + offset, y @ q + offset) == pytest.approx(metric(x, y), rel=1e-6)


@quick
@given(seed=seeds)
def test_rotations_do_not_change_the_kernel_distance(seed):
    x, y, q = normal(30, 4, seed) * 1.5, normal(25, 4, seed + 1), orthogonal(4, seed + 2)
    assert kernel_distance(x @ q, y @ q) == pytest.approx(kernel_distance(x, y), rel=1e-9, abs=1e-12)


@quick
@given(seed=seeds, offset=offsets)
def test_translations_do_not_change_the_sliced_distance(seed, offset):
    x, y = normal(30, 4, seed) * 1.5, normal(25, 4, seed + 1)
    assert sliced_wasserstein(x + offset, y + offset, 16) == pytest.approx(sliced_wasserstein(x, y, 16), rel=1e-9)


@pytest.mark.parametrize(("metric", "power"), [(ON_FEATURES[0], 2), (energy_distance, 1), (sliced_wasserstein, 1)])
@quick
@given(seed=seeds, scale=st.floats(0.01, 100))
def test_units_are_those_documented(metric, power, seed, scale):
    x, y = normal(20, 3, seed), normal(20, 3, seed + 1) + 1
    assert metric(scale * x, scale * y) == pytest.approx(scale**power * metric(x, y), rel=1e-6)


@pytest.mark.parametrize("metric", [ON_FEATURES[0], kernel_distance, energy_distance, sliced_wasserstein])
def test_distances_are_symmetric_and_grow_with_the_shift(metric):
    x, y = normal(60, 3, 1), normal(50, 3, 2)
    assert metric(x, y) == pytest.approx(metric(y, x), rel=1e-9)
    assert metric(x, y) < metric(x, y + 1) < metric(x, y + 2)


@pytest.mark.parametrize("metric", [ON_FEATURES[0], energy_distance, sliced_wasserstein])
def test_the_order_of_the_samples_does_not_matter_and_equal_sets_are_at_distance_zero(metric):
    x = normal(40, 3)
    assert metric(x, x.clone()) == pytest.approx(0, abs=1e-12)
    assert metric(x, x.flip(0)) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("metric", [ON_FEATURES[0], energy_distance])
def test_rounding_makes_no_distance_negative(metric):
    values = [metric(x, x.flip(0)) for x in (normal(20, 6, seed) for seed in range(40))]
    assert min(values) >= 0


@pytest.mark.parametrize("block", [1, 97, 640])
@every_metric
def test_the_size_of_a_block_does_not_change_the_result(metric, block, monkeypatch):
    x, y = normal(50, 3, 1), normal(41, 3, 2) + 0.5
    whole = metric(x, y)
    monkeypatch.setattr(metrics, "_BLOCK", block)
    assert metric(x, y) == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize("metric", [kernel_distance, precision_recall, energy_distance])
def test_no_more_than_a_block_of_pairs_is_held(metric, monkeypatch):
    monkeypatch.setattr(metrics, "_BLOCK", 1000)
    held = []
    blocks = metrics._blocks

    def spy(x, y):
        held.extend(len(rows) * len(y) for rows in blocks(x, y))
        return blocks(x, y)

    monkeypatch.setattr(metrics, "_blocks", spy)
    metric(normal(120, 2, 1), normal(150, 2, 2))
    assert 0 < max(held) <= 1000


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@every_metric
def test_features_of_any_precision_are_computed_in_float64(metric, dtype):
    x, y = normal(50, 3, 1).to(dtype), normal(41, 3, 2).to(dtype)
    assert metric(x, y) == metric(x.double(), y.double())


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (ON_FEATURES[0], r"len\(moments.mean\) = 3: must be 4, as in reference"),
        (kernel_distance, r"features.shape\[1\] = 3: must be 4, as in reference: take both sets from one feature"),
        (precision_recall, r"features.shape\[1\] = 3: must be 4"),
        (energy_distance, r"samples.shape\[1\] = 3: must be 4"),
        (sliced_wasserstein, r"samples.shape\[1\] = 3: must be 4"),
    ],
    ids=NAMES,
)
def test_different_dimensions_are_refused(metric, message):
    with pytest.raises(ValueError, match=message):
        metric(normal(10, 3), normal(10, 4))


@every_metric
def test_a_single_sample_is_refused(metric):
    with pytest.raises(ValueError, match=r"len\((features|samples)\) = 1: must be at least 2: draw more samples"):
        metric(normal(1, 3), normal(10, 3))
    with pytest.raises(ValueError, match=r"len\((features|reference)\) = 1: must be at least 2: draw more samples"):
        metric(normal(10, 3), normal(1, 3))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@every_metric
def test_values_that_are_not_finite_are_refused(metric, value):
    bad = normal(10, 3)
    bad[2, 1] = bad[4, 0] = value
    with pytest.raises(ValueError, match=r"non-finite values in (features|samples) = 2: must be 0: the generator"):
        metric(bad, normal(10, 3))
    with pytest.raises(ValueError, match=r"non-finite values in (features|reference) = 2: must be 0: the generator"):
        metric(normal(10, 3), bad)


@pytest.mark.parametrize(("n", "m", "k"), [(5, 9, 5), (9, 5, 5), (9, 5, 7), (9, 5, 0)])
def test_a_neighbour_that_does_not_exist_is_refused(n, m, k):
    with pytest.raises(
        ValueError, match=rf"k = {k}: must be from 1 to 4, below the size of either set: lower it or draw"
    ):
        precision_recall(normal(n, 2), normal(m, 2), k)


def test_no_projection_is_refused():
    with pytest.raises(ValueError, match="projections = 0: must be at least 1"):
        sliced_wasserstein(normal(5, 2), normal(5, 2), projections=0)
