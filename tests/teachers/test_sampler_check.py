"""A teacher is doubted where its samples and errors do not fit its noise levels, and only there."""

import pytest
import torch
from changed import Changed, wrong_above
from torch import nn

from simdistill.config.recipes import Recipe
from simdistill.evaluation.sampling import balanced_labels, draw, teacher_sampler
from simdistill.method.denoisers import residual
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.sampler_check import check_sampler
from simdistill.teachers.teacher import Judged, Teacher


def found(denoiser, shape=(8,), **facts):
    teacher = Teacher(denoiser, shape, **facts)
    return check_sampler(teacher, draw(teacher_sampler(teacher), range(64), shape, None)).doubts


@pytest.mark.parametrize("spread", [0.1, 1.0, 2.0])
@pytest.mark.parametrize("scale", [1.0, 0.05, 20.0])
def test_an_exact_denoiser_is_not_doubted(spread, scale):
    denoiser = Changed(spread=spread * scale)
    assert found(denoiser, sigma_min=0.002 * scale, sigma_max=80.0 * scale) == []


@pytest.mark.parametrize("name", ["digits", "gaussians-25", "gaussians-8", "rings", "checkerboard"])
def test_shipped_teachers_are_not_doubted(name):
    teacher = load_teacher(name)
    rows = balanced_labels(64, teacher.conditions)
    samples = draw(teacher_sampler(teacher), range(64), teacher.shape, rows)
    assert check_sampler(teacher, samples, rows).doubts == []


@pytest.mark.slow
def test_the_shipped_clothes_are_not_doubted():
    teacher = load_teacher("fashion-mnist")
    rows = balanced_labels(32, 10)
    assert check_sampler(teacher, draw(teacher_sampler(teacher), range(32), teacher.shape, rows), rows).doubts == []


@pytest.mark.parametrize("k", [1.0, 0.1, 20.0])
def test_a_network_that_is_wrong_above_a_level_is_told_a_sigma_max(k):
    told = found(Changed(wrong_above(5 * k), spread=k), sigma_min=0.002 * k, sigma_max=80.0 * k)
    assert "wrong at high noise" in told[0]
    assert "smaller sigma_max" in told[0]
    advised = float(told[0].rsplit("--teacher-range 0 ", 1)[1])
    assert 2 * k <= advised <= 6.5 * k


def test_errors_without_a_wide_spread_are_told_too():
    """A bounded error that the sampler undoes at lower levels."""

    def change(d, x, s):
        return torch.where(s > 20, d + 3 * torch.tanh(x), d)

    told = found(Changed(change))
    assert any("smaller sigma_max" in sentence for sentence in told)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d, x, s: x, "removes no noise"),
        (lambda d, x, s: 2 * x - d, "removes no noise|not finite"),  # the noise, with the wrong sign
        (lambda d, x, s: 0 * x + 0.3, "all alike"),
        (lambda d, x, s: d / 0.0, "not finite"),
    ],
)
def test_a_network_that_predicts_nothing_is_told(change, said):
    told = found(Changed(change))
    assert len(told) == 1
    assert any(part in told[0] for part in said.split("|"))


def test_a_range_that_ends_within_the_data_is_told_a_larger_one():
    told = found(Changed(spread=60.0))
    assert "too near to sigma_max = 80" in told[0]


@pytest.mark.parametrize(("mean", "spread", "top"), [(0.5, 0.25, "0 … 1,"), (127.5, 60.0, "0 … 255,")])
def test_pictures_in_another_range_are_told_how_to_wrap_them(mean, spread, top):
    scale = 255 if mean > 1 else 1

    def bounded(d, x, s):  # between two values, 0 and top, per coordinate: exactly E[x_0 | x_t]
        high = 2 * mean
        return high * torch.sigmoid((x - mean) * high / s**2)

    facts = {"sigma_min": 0.002 * scale, "sigma_max": 80.0 * scale}
    told = found(Changed(bounded, mean, spread), (1, 4, 4), **facts)
    assert top in told[-1]
    assert "wrap it" in told[-1]
    latents = Teacher(Changed(bounded, mean, spread), (1, 4, 4), **facts, judged=Judged(decode=lambda x: x))
    assert check_sampler(latents, draw(teacher_sampler(latents), range(64), (1, 4, 4), None)).doubts == []


def test_the_advice_for_pictures_in_0_to_1_makes_them_right():
    class Wrapped(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x, sigma, c=None):
            return 2 * self.inner((x + 1) / 2, sigma / 2, c) - 1

    def bounded(d, x, s):
        return torch.sigmoid((x - 0.5) / s**2)

    assert found(Wrapped(Changed(bounded)), (1, 4, 4), sigma_min=0.004, sigma_max=160.0) == []


def test_the_check_changes_nothing_of_the_teacher():
    teacher = load_teacher("digits")
    x, sigma = torch.ones(2, 1, 8, 8), torch.tensor([0.5, 1.0])
    before = residual(teacher.denoiser, x, sigma, torch.tensor([1, 2]))
    rows = balanced_labels(16, 10)
    check_sampler(teacher, draw(teacher_sampler(teacher), range(16), teacher.shape, rows), rows)
    assert torch.equal(before, residual(teacher.denoiser, x, sigma, torch.tensor([1, 2])))


def test_a_teacher_within_a_range():
    teacher = load_teacher("digits")
    assert (teacher.within(0.1, 20).sigma_min, teacher.within(0.1, 20).sigma_max) == (0.1, 20)
    asked = teacher.prepared(Recipe(teacher_range=(0.0, 9.0)))
    assert (asked.sigma_min, asked.sigma_max) == (teacher.sigma_min, 9.0)
    assert teacher.prepared(Recipe()) == teacher
    with pytest.raises(ValueError, match=r"teacher_range = \(100, 200\): must be levels within .* 0.002 … 80"):
        teacher.within(100, 200)
