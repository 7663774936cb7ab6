"""Evaluations that are stopped: what was measured is kept, and the figures are those of an evaluation in one go."""

import pytest
import torch

from simdistill.evaluation import partial
from simdistill.evaluation.drawn import WARM_UP
from simdistill.evaluation.extractors import PIXELS
from simdistill.evaluation.partial import NOTHING_KEPT, Partial
from simdistill.evaluation.quality import evaluate, reference_for
from simdistill.evaluation.reference import Reference
from simdistill.evaluation.sampling import Sampler
from simdistill.evaluation.statistics import Statistics
from simdistill.evaluation.stored import read_statistics
from simdistill.teachers.teacher import Teacher

TEACHER = Teacher(lambda x_t, sigma, condition=None: x_t / (1 + sigma.view(-1, 1) ** 2), (2,))
AGAINST = Reference("noise", PIXELS, Statistics.of(torch.randn(50, 2, generator=torch.Generator().manual_seed(0))))


class Stop(Exception):  # noqa: N818
    pass


@pytest.fixture(autouse=True)
def everything_is_worth_keeping(monkeypatch):
    monkeypatch.setattr(partial, "WORTH_KEEPING", 0.0)


def counting(drawn):
    def draw(z, rows):
        drawn.extend(z[:, 0].tolist())
        return 2 * z

    return Sampler(draw, 1)


def stopping_after(batches):
    left = [batches]

    def between():
        left[0] -= 1
        if left[0] == 0:
            raise Stop

    return between


@pytest.mark.parametrize("batches", [1, 4, 6, 9, 11])
def test_a_repeated_evaluation_draws_only_what_is_missing(tmp_path, batches):
    """Two samplers, two seeds of 30 samples in batches of 10: four units of three batches."""
    drawn: list[float] = []
    samplers, kept = {name: counting(drawn) for name in ("a", "b")}, Partial(tmp_path / "partial", "these")
    whole = evaluate(samplers, TEACHER, AGAINST, 30, 2, batch=10)
    drawn.clear()
    kept.prepare()
    with pytest.raises(Stop):
        evaluate(samplers, TEACHER, AGAINST, 30, 2, batch=10, partial=kept, between=stopping_after(batches))
    drawn.clear()
    kept.prepare()
    found = evaluate(samplers, TEACHER, AGAINST, 30, 2, batch=10, partial=kept)
    begun_anew = sum(3 * unit >= batches for unit in range(4))
    assert len(drawn) == 10 * (12 - batches) + WARM_UP * begun_anew
    for name in samplers:
        assert found[name]["frechet"]["values"] == pytest.approx(whole[name]["frechet"]["values"], rel=1e-6)
        assert found[name]["recall"] == whole[name]["recall"]
    kept.finish()
    assert not (tmp_path / "partial").exists()


def test_results_of_something_else_are_discarded(tmp_path):
    first = Partial(tmp_path / "partial", "weights 1")
    first.prepare()
    first.keep_features("a-0", range(3), torch.ones(3, 2), 1.0)
    first.keep_figures("b-0", {"frechet": 2.0}, 1.0)
    features, seconds = first.features("a-0", range(3))
    assert torch.equal(features, torch.ones(3, 2))
    assert (seconds, first.figures("b-0")) == (1.0, {"frechet": 2.0})
    first.prepare()
    assert first.figures("b-0") is not None
    other = Partial(tmp_path / "partial", "weights 2")
    other.prepare()
    assert other.features("a-0", range(3)) is None
    assert other.figures("b-0") is None


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"\x93NUMPY junk"])
def test_damaged_results_are_measured_again(tmp_path, content):
    kept = Partial(tmp_path, "x")
    kept.prepare()
    kept.keep_features("a-0", range(3), torch.ones(3, 2), 1.0)
    next(tmp_path.glob("a-0*.npz")).write_bytes(content)
    (tmp_path / "b-0.json").write_bytes(content)
    assert kept.features("a-0", range(3)) is None
    assert kept.figures("b-0") is None


def test_what_takes_no_time_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(partial, "WORTH_KEEPING", 0.5)
    kept = Partial(tmp_path, "x")
    kept.keep_features("a-0", range(3), torch.ones(3, 2), 0.4)
    kept.keep_figures("a-0", {}, 0.4)
    assert list(tmp_path.iterdir()) == []
    assert NOTHING_KEPT.figures("a-0") is None


def test_the_reference_is_drawn_once_and_kept(tmp_path):
    path, calls = tmp_path / "reference.npz", []

    def denoiser(x_t, sigma, condition=None):
        calls.append(len(x_t))
        return x_t / (1 + sigma.view(-1, 1) ** 2)

    teacher = Teacher(denoiser, (2,))
    first = reference_for(teacher, 40, kept=path)
    drawn = len(calls)
    assert drawn > 0
    again = reference_for(teacher, 40, kept=path)
    fewer = reference_for(teacher, 20, kept=path)
    assert len(calls) == drawn
    assert again.name == fewer.name == first.name == "40 samples of the teacher"
    assert torch.equal(again.statistics.features, first.statistics.features)
    assert read_statistics(path).statistics.images == 40
    more = reference_for(teacher, 60, kept=path)
    assert len(calls) > drawn
    assert more.statistics.images == read_statistics(path).statistics.images == 60
    assert torch.allclose(more.statistics.features[:40], first.statistics.features, atol=1e-6)


def test_a_stopped_reference_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("simdistill.evaluation.quality.batch_for", lambda shape: 10)
    path, sizes = tmp_path / "reference.npz", []

    def denoiser(x_t, sigma, condition=None):
        sizes.append(len(x_t))
        return x_t / (1 + sigma.view(-1, 1) ** 2)

    teacher = Teacher(denoiser, (2,))
    whole = reference_for(teacher, 40)
    sizes.clear()
    with pytest.raises(Stop):
        reference_for(teacher, 40, kept=path, between=stopping_after(3))
    assert sizes.count(10) == 3 * 35
    sizes.clear()
    found = reference_for(teacher, 40, kept=path)
    assert sizes.count(10) == 35  # the last batch
    assert torch.equal(found.statistics.features, whole.statistics.features)
    assert [file.name for file in tmp_path.iterdir()] == ["reference.npz"]
