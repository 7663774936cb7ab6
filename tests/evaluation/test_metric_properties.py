"""What holds for every metric: symmetries, units, blocks, precision, and what is refused."""

import math

import pytest
import torch
from drawn import normal, orthogonal
from hypothesis import given, settings
from hypothesis import strategies as st

from simdistill.evaluation import metrics
from simdistill.evaluation.metrics import (
    Moments,
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
    # torch takes distances of more than 25 rows by a matrix product, which loses digits where it cancels
    assert metric(x, y) == pytest.approx(whole, rel=1e-7)


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
        (kernel_distance, r"features.shape\[1\] = 3: must be 4, as in reference: use the same feature extractor"),
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
