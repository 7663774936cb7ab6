"""Workflows in Python: teachers of all kinds, pretraining and its resumption, interruption, divergence."""

import json
import math
import os
import signal
from dataclasses import replace

import pytest
import torch
from PIL import Image

from simdistill.config.recipes import RECIPES
from simdistill.data.images import open_images
from simdistill.evaluation.quality import REFERENCE_SEED, evaluate, reference_for
from simdistill.evaluation.sampling import Sampler, balanced_labels, batch_for, draw
from simdistill.method.denoisers import GaussianMixture, residual
from simdistill.method.ema import EMA, PowerEMA
from simdistill.method.samplers import noise_from_seeds
from simdistill.reports.pictures import picture
from simdistill.runs.folder import RunFolder
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.teacher import Teacher
from simdistill.training.loop import Diverged, Interrupted
from simdistill.training.pretrainer import PretrainingTrainer
from simdistill.training.pretraining import Pretraining
from simdistill.training.trainer import DistillationTrainer
from simdistill.workflows import budget, distilling, evaluating, measuring, models, proxy, reading, sampling
from simdistill.workflows.budget import LADDER
from simdistill.workflows.measuring import Measurements
from simdistill.workflows.pretraining import pretrain, resume_pretraining

SHORT = replace(RECIPES["digits"], teacher="", batch=16, iterations=40)

UNJUDGED = Measurements(milestones=16, samples=0)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Few samples: the figures are looked at for what they compare, not for their precision."""
    monkeypatch.setattr(budget, "LADDER", (budget.Fineness(100, 2, 16, 50, 3),))
    monkeypatch.setattr(evaluating, "evaluate", lambda *a, **k: evaluate(*a[:3], 100, 2, **k))
    small = lambda teacher, _, *a, **k: reference_for(teacher, 200, *a, **k)  # noqa: E731
    monkeypatch.setattr(evaluating, "reference_for", small)
    monkeypatch.setattr(measuring, "reference_for", small)


class Affine(torch.nn.Module):
    """The exact denoiser of N(mean, I) as a module with weights: a network of the user's own."""

    def __init__(self, mean=(1.0, -2.0)):
        super().__init__()
        self.mean = torch.nn.Parameter(torch.tensor(mean))

    def forward(self, x_t, sigma, condition=None):
        share = sigma[:, None] ** 2 / (1 + sigma[:, None] ** 2)
        return x_t + share * (self.mean - x_t)


def test_a_module_of_ones_own(tmp_path):
    teacher = Teacher(Affine(), shape=(2,))
    generator = distilling.distill(teacher, SHORT, tmp_path / "run")
    z = noise_from_seeds(range(5), (2,))
    drawn = sampling.sample(tmp_path / "run", range(5), teacher=teacher)
    torch.testing.assert_close(drawn, generator(z).detach(), rtol=0, atol=1e-6)
    figures = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert figures["reference"] == "200 samples of the teacher"
    assert figures["real"] is None
    with pytest.raises(ValueError, match="name it again with --teacher"):
        evaluating.evaluate_run(tmp_path / "run")
    with pytest.raises(ValueError, match=r"labels = .*no classes"):
        sampling.sample(tmp_path / "run", [0], [1], teacher)


@pytest.mark.parametrize("rung", [row for row in LADDER if not row.samples], ids=str)
def test_a_teacher_too_slow_to_be_measured_has_pictures_from_the_same_noise(tmp_path, monkeypatch, rung):
    monkeypatch.setattr(budget, "LADDER", (rung,))
    drawn = []
    monkeypatch.setattr(measuring, "reference_for", lambda t, n, *_, **__: drawn.append(n) or reference_for(t, n))
    teacher = load_teacher("digits")
    teacher = replace(teacher, judged=replace(teacher.judged, data=None))  # no other reference than its own samples
    distilling.distill(teacher, replace(SHORT, iterations=4), tmp_path / "run")
    run = RunFolder.open(tmp_path / "run")
    assert drawn == [rung.milestone_samples] * (rung.milestone_samples > 0)
    assert not run.evaluation.exists()
    assert any("quality" in record for record in run.read_metrics()) == (rung.milestone_samples > 0)
    assert run.picture("00000004").exists()
    names = ("teacher", "student", "undistilled")
    sizes = {name: Image.open(run.picture(name)).size for name in names}
    assert len(set(sizes.values())) == 1
    kept = reading.kept(run)
    assert run.picture("teacher").read_bytes() == picture(kept.samples[:80])
    page = run.report.read_text()
    assert "Not evaluated" in page
    assert "No pictures of teacher and student" not in page


def test_an_exact_density_has_a_proxy_first(tmp_path, monkeypatch):
    monkeypatch.setattr(proxy, "PROXY", Pretraining(width=32, depth=1, iterations=300, batch=128))
    monkeypatch.setattr(proxy, "PROXY_SAMPLES", 2000)
    teacher = Teacher(GaussianMixture(torch.tensor([[1.0, 0.0]]), 0.25 * torch.eye(2)[None]), (2,), name="gaussian")
    distilling.distill(teacher, replace(SHORT, iterations=60), tmp_path / "run")
    start = models.starting_network(RunFolder.open(tmp_path / "run"), teacher)
    x, sigma = torch.tensor([[1.5, 0.5], [0.0, 0.0]]), torch.tensor([0.5, 1.0])
    # E[x_0 | x_t] = m + s² / (s² + sigma²) (x_t - m)
    exact = teacher.denoiser.means + (0.25 / (0.25 + sigma**2))[:, None] * (x - teacher.denoiser.means)
    torch.testing.assert_close(start(x, sigma), exact, rtol=0, atol=0.1)
    drawn = sampling.sample(tmp_path / "run", range(500))
    assert (drawn.mean(0) - torch.tensor([1.0, 0.0])).abs().max() < 0.15


def test_an_interrupted_run_is_usable_and_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    teacher = load_teacher("digits")
    distilling.distill(teacher, SHORT, tmp_path / "straight", measured=UNJUDGED)

    step = distilling.DistillationTrainer.step

    def interrupted(self):
        step(self)
        if self.iteration == 17:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(distilling.DistillationTrainer, "step", interrupted)
    with pytest.raises(Interrupted, match="iteration 17"):
        distilling.distill(teacher, SHORT, tmp_path / "stopped", measured=UNJUDGED)
    assert sampling.sample(tmp_path / "stopped", range(3)).shape == (3, 1, 8, 8)
    evaluation = tmp_path / "stopped" / "evaluation.json"
    evaluation.write_text("{}")
    distilling.resume(tmp_path / "stopped", measured=UNJUDGED)
    assert not evaluation.exists()  # it was of weights that are gone
    assert (tmp_path / "stopped" / "report.html").exists()
    for name in ("checkpoints/000000040.safetensors", "generator.safetensors"):
        a, b = ((tmp_path / run / name).read_bytes() for run in ("straight", "stopped"))
        header = 8 + int.from_bytes(a[:8], "little")
        assert a[header:] == b[8 + int.from_bytes(b[:8], "little") :]
    monkeypatch.setattr(distilling, "write_report", lambda run: None)
    evaluation.write_text("{}")
    distilling.resume(tmp_path / "stopped", measured=UNJUDGED)
    assert evaluation.exists()  # of weights that stay


@pytest.mark.slow
def test_learning_rates_that_explode_are_halved_three_times_before_the_run_is_given_up(tmp_path):
    wild = replace(SHORT, online_lr=1e30, generator_lr=1e30, iterations=100, warmup=0)
    with pytest.raises(Diverged, match=r"after 3 rollbacks"):
        distilling.distill(load_teacher("digits"), wild, tmp_path / "run")
    records = RunFolder.open(tmp_path / "run").read_metrics()
    assert [r["rate"] for r in records if "rollback" in r] == [0.5, 0.25, 0.125]
    assert "roll" in (tmp_path / "run" / "report.html").read_text()


def test_a_rate_that_is_somewhat_too_high_is_found_and_lowered(tmp_path, monkeypatch):
    monkeypatch.setattr(DistillationTrainer, "_rate", lambda self, update: 1e-4 if self.rollbacks else 1e30)
    recipe = replace(SHORT, iterations=60, warmup=0)
    distilling.distill(load_teacher("digits"), recipe, tmp_path / "run", measured=UNJUDGED)
    (notice,) = [r for r in RunFolder.open(tmp_path / "run").read_metrics() if "rollback" in r]
    assert notice["iteration"] == 0


@pytest.mark.slow
def test_several_ema_are_kept_and_measured(tmp_path):
    recipe = replace(SHORT, ema=(EMA(500), EMA(0.0), PowerEMA(0.2)), iterations=60)
    generator = distilling.distill(load_teacher("digits"), recipe, tmp_path / "run")
    figures = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert figures["ema"] == {
        "ema-1": "EMA(half_life=0.0, ramp_up=0.05)",
        "ema-2": "PowerEMA(std=0.2)",
    }
    distances = {figures[name]["frechet"]["mean"] for name in ("student", "ema-1", "ema-2")}
    assert len(distances) == 3
    drawn = [sampling.sample(tmp_path / "run", range(4), [3], ema=k) for k in range(3)]
    z, labels = noise_from_seeds(range(4), (1, 8, 8)), torch.tensor([3] * 4)
    torch.testing.assert_close(drawn[0], generator(z, labels), rtol=0, atol=1e-6)
    assert (drawn[0] - drawn[1]).abs().max() > 1e-3
    with pytest.raises(ValueError, match=r"ema = 3: must be in 0 … 2"):
        sampling.sample(tmp_path / "run", range(4), ema=3)


def test_a_service_gets_metrics_and_pictures(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    distilling.distill(load_teacher("digits"), SHORT, tmp_path / "run", log=["tensorboard"])
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    (last,) = [r for r in RunFolder.open(tmp_path / "run").read_metrics() if "online_loss" in r]
    (loss,) = events.Scalars("online_loss")
    assert (loss.step, loss.value) == (40, pytest.approx(last["online_loss"], rel=1e-6))
    assert len(events.Images("student")) == 4  # the accumulator's own limit
    with pytest.raises(ValueError, match="--log = 'mlflow'"):
        distilling.distill(load_teacher("digits"), SHORT, tmp_path / "other", log=["mlflow"])
    assert not (tmp_path / "other").exists()


def test_a_teacher_of_the_wrong_shape_writes_nothing(tmp_path):
    teacher = Teacher(lambda x_t, sigma, condition=None: torch.zeros(len(x_t), 3), (2,))
    with pytest.raises(ValueError, match=r"denoiser output = \[2, 3\]"):
        distilling.distill(teacher, SHORT, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("network", ["mlp", pytest.param("unet", marks=pytest.mark.slow)])
def test_pretraining_learns_and_resumes(tmp_path, network):
    settings = Pretraining(
        "digits", features="digits", network=network, width=16, depth=1, batch=32, iterations=60, ema_half_life=100
    )
    figures = pretrain(settings, tmp_path / "a")
    losses = [record["loss"] for record in RunFolder.open(tmp_path / "a").read_metrics() if "loss" in record]
    # the preconditioned network starts as the best linear denoiser, at a loss of about one a pixel
    assert losses[-1] < 0.97 * 64
    assert math.isfinite(figures["frechet"]["mean"])
    teacher = load_teacher(str(tmp_path / "a" / "generator.safetensors"))
    assert (teacher.shape, teacher.classes, teacher.judged.data) == ((1, 8, 8), 10, "digits")
    assert resume_pretraining(tmp_path / "a")["frechet"]["values"] == figures["frechet"]["values"]


@pytest.mark.parametrize("rung", [row for row in LADDER if not row.samples], ids=str)
def test_a_pretraining_too_slow_to_be_measured_is_pictured(tmp_path, monkeypatch, rung):
    monkeypatch.setattr(budget, "LADDER", (rung,))
    settings = Pretraining("digits", features="digits", network="mlp", width=16, depth=1, batch=32, iterations=8)
    assert pretrain(settings, tmp_path / "a") == {}
    run = RunFolder.open(tmp_path / "a")
    assert run.picture("00000008").exists()
    assert any("quality" in record for record in run.read_metrics()) == (rung.milestone_samples > 0)
    asked = Measurements(milestones=1, samples=50)
    assert resume_pretraining(tmp_path / "a", measured=asked)["samples"] == 50


def test_pretraining_resumes_to_the_same_bits():
    data = open_images("digits")
    settings = Pretraining(width=16, depth=1, batch=8, iterations=20)
    straight, first, second = (PretrainingTrainer(data, settings) for _ in range(3))
    for _ in range(6):
        straight.step()
    for _ in range(2):
        first.step()
    second.restore(first.state())
    for _ in range(4):
        second.step()
    for name, tensor in straight.state().items():
        assert torch.equal(tensor, second.state()[name]), name
    assert straight.sigma_data == pytest.approx(float(data.batch(range(1348)).std()), abs=1e-3)


def test_digits_are_split_and_scaled():
    training = open_images("digits")
    held_out = training.held_out
    assert (len(training), len(held_out)) == (1348, 449)
    images = training.batch(range(1348))
    everything = torch.cat([images, held_out.batch(range(449))])
    assert (float(everything.min()), float(everything.max())) == (-1.0, 1.0)
    assert torch.cat([training.labels, held_out.labels]).bincount().tolist() == [
        178, 182, 177, 183, 181, 182, 181, 179, 174, 180,
    ]  # fmt: skip
    # scikit-learn's own first image: a zero
    assert (images[0, 0, 0] * 8 + 8).tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert int(training.labels[0]) == 0


def test_features_are_standardised_on_the_training_images():
    reference = reference_for(load_teacher("digits"))
    moments = reference.statistics.moments
    # running statistics of the last batches of augmented images: near 0 and 1
    assert moments.mean.abs().max() < 0.3
    assert moments.covariance.diagonal().sub(1).abs().max() < 0.5
    real = reference.real()
    assert real is not None
    assert 0.05 < real["frechet"]["mean"] < 0.3


def test_evaluation_of_the_teachers_own_samples(tmp_path):
    teacher = Teacher(Affine(), shape=(2,))
    reference = reference_for(teacher, samples=2000)
    first = noise_from_seeds(range(REFERENCE_SEED, REFERENCE_SEED + 500), (2,))
    assert not torch.equal(first, noise_from_seeds(range(500), (2,)))
    # the exact generator of N(mean, I), beside one that has lost half of its spread
    figures = evaluate(
        {
            "exact": Sampler(lambda z, c: z + torch.tensor([1.0, -2.0]), 1),
            "narrow": Sampler(lambda z, c: z / 2 + torch.tensor([1.0, -2.0]), 3),
        },
        teacher,
        reference,
        samples=500,
        seeds=3,
    )
    assert [figures[name]["nfe"] for name in ("exact", "narrow")] == [1, 3]
    assert figures["exact"]["frechet"]["mean"] < 0.05
    assert figures["narrow"]["frechet"]["mean"] == pytest.approx(2 * 0.5**2, abs=0.1)  # Σ (1 - 1/2)²
    assert figures["narrow"]["recall"]["mean"] < figures["exact"]["recall"]["mean"] - 0.2


def test_larger_samples_are_drawn_fewer_at_a_time():
    shapes = [(2,), (1, 8, 8), (1, 32, 32), (3, 32, 32), (3, 64, 64), (3, 1024, 1024)]
    assert [batch_for(shape) for shape in shapes] == [500, 500, 500, 166, 41, 1]


def test_draw_is_the_same_in_any_batch(monkeypatch):
    teacher = load_teacher("digits")
    labels = balanced_labels(12, 10)

    def sampler(z, c):
        return z + residual(teacher.denoiser, z, torch.ones(len(z)), c)

    whole = draw(sampler, range(12), teacher.shape, labels)
    monkeypatch.setattr("simdistill.evaluation.sampling.BATCH", 5)
    torch.testing.assert_close(draw(sampler, range(12), teacher.shape, labels), whole, rtol=0, atol=1e-6)
