"""Statistics gathered in parts, stored and read again; metrics on images beside those of other libraries."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from drawn import noise
from hypothesis import given, settings
from hypothesis import strategies as st
from prdc import compute_prdc
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from simdistill.data.images import array_set
from simdistill.evaluation import drawn as drawn_module
from simdistill.evaluation import quality, statistics
from simdistill.evaluation.extractors import PIXELS, Extractor
from simdistill.evaluation.metrics import Moments, frechet_distance
from simdistill.evaluation.reference import Reference, data_reference
from simdistill.evaluation.running import RunningInceptionScore
from simdistill.evaluation.sampling import Sampler
from simdistill.evaluation.statistics import Gathering, Statistics, statistics_of
from simdistill.evaluation.table import METRICS
from simdistill.method.samplers import noise_from_seeds
from simdistill.teachers.teacher import Teacher

quick = settings(max_examples=25, deadline=None, derandomize=True)


def classified(dimensions=6, classes=5):
    """An extractor with classes, of images of 12 values."""
    mixing, weight = noise(12, dimensions, seed=8), 2 * noise(dimensions, classes, seed=9)
    return Extractor("mixed", lambda x: (x.flatten(1) @ mixing).tanh(), lambda f: (f @ weight).softmax(1))


def gathered(images, extractor, cuts, scored=True):
    gathering = Gathering(extractor, len(images), scored)
    ends = sorted({0, len(images), *(cut % len(images) for cut in cuts)})
    for first, last in reversed(list(pairwise(ends))):  # in any order, too
        gathering.add(first, images[first:last])
    return gathering.statistics()


# --- gathering --------------------------------------------------------------------------------------------------------


@quick
@given(cuts=st.lists(st.integers(0, 10**6), max_size=6), n=st.integers(10, 60))
def test_the_parts_that_images_come_in_change_nothing(cuts, n):
    images, extractor = noise(n, 3, 2, 2), classified()
    found = gathered(images, extractor, cuts)
    features = extractor.features(images).double().numpy()
    assert found.images == n
    np.testing.assert_allclose(found.moments.mean, features.mean(0), rtol=0, atol=1e-7)
    np.testing.assert_allclose(found.moments.covariance, np.cov(features.T), rtol=0, atol=1e-7)
    np.testing.assert_allclose(found.features, features, rtol=0, atol=1e-6)
    assert found.inception_score == pytest.approx(salimans(extractor, images), rel=1e-6)


def salimans(extractor, images, splits=10):
    """The score as its authors compute it: a loop over consecutive parts."""
    p = extractor.probabilities(extractor.features(images)).double().numpy()
    scores = []
    for i in range(splits):
        part = p[i * len(p) // splits : (i + 1) * len(p) // splits]
        kl = part * (np.log(part) - np.log(part.mean(0, keepdims=True)))
        scores.append(np.exp(kl.sum(1).mean()))
    return np.mean(scores)


@pytest.mark.parametrize("n", [8, 30, 31])
def test_no_more_features_are_kept_than_said_and_always_the_same(n, monkeypatch):
    monkeypatch.setattr(statistics, "KEPT", 8)
    images = torch.arange(float(n)).reshape(n, 1)
    kept = [gathered(images, PIXELS, cuts, scored=False).features[:, 0].tolist() for cuts in ([], [3, 11], range(n))]
    assert kept[0] == kept[1] == kept[2]
    assert len(kept[0]) == 8
    assert kept[0] == sorted(set(kept[0]))
    if n > 8:  # neither the first, nor every so-manieth, which may all have one label
        assert max(kept[0]) > 16
        assert len({b - a for a, b in zip(kept[0], kept[0][1:], strict=False)}) > 1


def test_moments_of_more_images_than_are_kept_are_those_of_all(monkeypatch):
    monkeypatch.setattr(statistics, "KEPT", 8)
    monkeypatch.setattr(statistics, "BATCH", 7)
    images = noise(50, 3, 2, 2)
    done = []
    found = statistics_of(array_set("noise", images), PIXELS, advance=done.append)
    np.testing.assert_allclose(found.moments.covariance, np.cov(images.flatten(1).double().numpy().T), atol=1e-12)
    assert found.features.shape == (8, 12)
    assert found.inception_score is None
    assert done == [7] * 7 + [1]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_images_whose_features_are_not_finite_are_refused(value):
    images = noise(20, 4)
    images[3, 1] = images[11, 2] = value
    with pytest.raises(ValueError, match="non-finite values in features = 2: must be 0: the generator or the feature"):
        gathered(images, PIXELS, [5], scored=False)


def test_a_process_without_images_is_refused():
    with pytest.raises(ValueError, match="images = 1: must be at least one per process"):
        Gathering(PIXELS, 1).statistics()


# --- the Inception Score ----------------------------------------------------------------------------------------------


def test_the_inception_score_by_hand():
    # halves of two classes that are sure of themselves: 2 in each split; one class alone: 1; unsure: 1
    def score(p):
        running = RunningInceptionScore(len(p))
        running.add(0, p)
        return running.value(lambda tensor: tensor)

    assert score(torch.eye(2).repeat(20, 1)) == pytest.approx(2)
    assert score(torch.tensor([[1.0, 0.0]]).repeat(40, 1)) == pytest.approx(1)
    assert score(torch.full((40, 4), 0.25)) == pytest.approx(1)
    assert score(torch.eye(7).repeat(10, 1)) == pytest.approx(7)
    with pytest.raises(ValueError, match="samples = 9: must be at least 10"):
        RunningInceptionScore(9)


@pytest.mark.filterwarnings("ignore:Metric `InceptionScore`")
def test_the_inception_score_agrees_with_torchmetrics(monkeypatch):
    logits = 2 * noise(70, 9, seed=3)
    theirs = InceptionScore(feature=torch.nn.Identity(), splits=10)
    monkeypatch.setattr(torch, "randperm", lambda n: torch.arange(n))  # it shuffles the samples first
    theirs.update(logits)
    running = RunningInceptionScore(70)
    running.add(0, logits[:33].softmax(1))
    running.add(33, logits[33:].softmax(1))
    mean, std = theirs.compute()
    assert running.value(lambda tensor: tensor) == pytest.approx(float(mean), rel=1e-6)
    assert float(std) > 0.01


# --- every metric of images -------------------------------------------------------------------------------------------


class Features(torch.nn.Module):
    """An extractor as torchmetrics takes it."""

    num_features = 6

    def __init__(self, extractor):
        super().__init__()
        self.extractor = extractor

    def forward(self, images):
        return self.extractor.features(images).double()


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
def test_metrics_of_images_agree_with_torchmetrics_and_prdc():
    extractor, real, fake = classified(), noise(90, 3, 2, 2, seed=1), 0.8 * noise(90, 3, 2, 2, seed=2) + 0.2
    reference = data_reference("noise", array_set("noise", real), extractor)
    found = reference.measure(gathered(fake, extractor, [17, 40, 41]))
    fid, kid = FrechetInceptionDistance(Features(extractor)), KernelInceptionDistance(Features(extractor), 1, 90)
    for metric in (fid, kid):
        metric.update(real, real=True)
        metric.update(fake, real=False)
    assert found["frechet"] == pytest.approx(float(fid.compute()), rel=1e-6)
    assert found["kernel"] == pytest.approx(float(kid.compute()[0]), rel=1e-6)
    assert found["inception_score"] == pytest.approx(salimans(extractor, fake), rel=1e-6)
    sets = [extractor.features(images).double().numpy() for images in (real, fake)]
    theirs = compute_prdc(real_features=sets[0], fake_features=sets[1], nearest_k=3)
    assert {name: found[name] for name in theirs} == pytest.approx(theirs, rel=1e-9)
    assert 0.1 < found["frechet"] < 10
    assert 0 < found["recall"] < 1


def test_without_features_of_the_reference_only_the_distance_of_moments_is_left():
    x = noise(40, 6)
    whole, moments = Statistics.of(x), Statistics(40, Moments.of(x + 1))
    assert Reference("all", PIXELS, whole).measure(whole).keys() > {"frechet", "recall", "kernel", "energy"}
    assert Reference("moments", PIXELS, moments).measure(whole) == {"frechet": pytest.approx(6, rel=1e-5)}
    assert Reference("moments", PIXELS, moments).real() is None


# --- samples ----------------------------------------------------------------------------------------------------------


def test_noises_and_samples_are_forgotten_as_they_come(monkeypatch):
    """The most that is held at a time is a batch, of however many samples; figures do not depend on them."""
    seen, drawn = [], []

    def features(images):
        seen.append(len(images))
        return images

    def counted(seeds, shape):
        drawn.append(len(seeds))
        return noise_from_seeds(seeds, shape)

    monkeypatch.setattr(drawn_module, "noise_from_seeds", counted)
    teacher = Teacher(lambda x_t, sigma, condition=None: x_t, (2,))
    reference = Reference("noise", Extractor("counted", features), Statistics.of(noise(60, 2)))
    samplers = {"wide": Sampler(lambda z, rows: 2 * z, nfe=1)}
    whole = quality.evaluate(samplers, teacher, reference, samples=61, seeds=2)["wide"]
    seen.clear()
    drawn.clear()
    parts = quality.evaluate(samplers, teacher, reference, samples=61, seeds=2, batch=3)["wide"]
    assert max(seen) == max(drawn) == 3
    assert sum(seen) == sum(drawn) == 2 * 61
    names = [metric.name for metric in METRICS if metric.needs in ("moments", "features")]
    for name in names:
        assert parts[name]["values"] == pytest.approx(whole[name]["values"], rel=1e-9)
    z = noise_from_seeds(range(61, 122), (2,))  # the second evaluation seed's
    expected = frechet_distance(Moments.of(2 * z), reference.statistics.moments)
    assert whole["frechet"]["values"][1] == pytest.approx(expected, rel=1e-9)
    assert whole["frechet"]["minimum"] == min(whole["frechet"]["values"])
