"""`examples/adversarial.py`: a method with a third network and real images is one file outside of the package."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from picture_files import in_folder, png
from torch.nn.functional import softplus

from examples import adversarial
from examples.adversarial import Adversarial, features
from simdistill.cli import main
from simdistill.config.recipes import RECIPES
from simdistill.method.algorithm import Batch, frozen
from simdistill.method.noise import diffuse
from simdistill.runs.folder import RunFolder
from simdistill.teachers.loading import load_teacher
from simdistill.training.trainer import DistillationTrainer
from simdistill.workflows.distilling import distill, resume
from simdistill.workflows.measuring import Measurements

METHOD = "examples.adversarial:Adversarial(weight=0.1)"
RECIPE = replace(RECIPES["digits"], batch=16, iterations=12, warmup=0, method=Adversarial(weight=0.1))
UNMEASURED = Measurements(milestones=1, seeds=0, samples=0)


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_it_is_one_file_of_some_hundred_lines_outside_of_the_package():
    assert len(Path(adversarial.__file__).read_text().splitlines()) <= 120


def test_every_network_is_trained_and_its_metrics_are_kept():
    trainer = DistillationTrainer(load_teacher("digits"), RECIPE)
    assert list(trainer.networks) == ["online", "generator", "discriminator"]
    before = {name: weights(network) for name, network in trainer.networks.items()}
    for _ in range(3):
        trainer.step()
    for name, network in trainer.networks.items():
        assert not torch.equal(weights(network), before[name])
    metrics = trainer.metrics()
    assert {"discriminator_loss", "discriminator_gradient_norm", "generator_loss", "taken_for_real"} <= metrics.keys()
    assert set(metrics["levels"]) == {"y_norm", "taken_for_real"}
    assert 0 < metrics["taken_for_real"] < 1


def test_the_losses_are_those_of_their_formulas():
    trainer, (generator, _, discriminator) = (
        DistillationTrainer(load_teacher("digits"), RECIPE),
        RECIPE.algorithm.updates(),
    )
    rng = torch.Generator().manual_seed(0)
    z, eps, images = torch.randn(3, 16, 1, 8, 8, generator=rng)
    labels, sigma = torch.arange(16) % 10, torch.linspace(0.1, 2, 16)
    batch = Batch(z, sigma, eps, labels, images=images, images_condition=labels.flip(0))
    players = trainer.players

    def logit(x_0, condition):
        seen = features(players["online"], diffuse(x_0, sigma, eps), sigma, condition)
        return players["discriminator"](seen)[:, 0]

    x_0 = players["generator"](z, labels)
    expected = softplus(-logit(images, labels.flip(0))) + softplus(logit(x_0, labels))
    torch.testing.assert_close(discriminator.loss(players, batch).value, expected)

    base = replace(RECIPE, method=None, share_samples=True).algorithm.updates()[0].loss(players, batch)
    with frozen(players["online"], players["discriminator"]):
        found = generator.loss(players, batch)
    torch.testing.assert_close(found.value, base.value + 0.1 * softplus(-logit(x_0, labels)))
    torch.testing.assert_close(found.metrics["y_norm"], base.metrics["y_norm"])
    gradient = torch.autograd.grad(found.value.sum(), list(players["generator"].parameters()))
    plain = torch.autograd.grad(base.value.sum(), list(players["generator"].parameters()))
    assert any(not torch.allclose(a, b) for a, b in zip(gradient, plain, strict=True))  # its term reaches the generator


def test_a_run_that_was_stopped_resumes_exactly(tmp_path):
    straight = distill(load_teacher("digits"), RECIPE, tmp_path / "straight", measured=UNMEASURED)

    class Stop(Exception):  # noqa: N818
        pass

    def observe(trainer):
        if trainer.iteration == 6:
            state.update(trainer.state())
            raise Stop

    state = {}
    stopping = replace(UNMEASURED, milestones=2, observe=observe)
    with pytest.raises(Stop):
        distill(load_teacher("digits"), RECIPE, tmp_path / "stopped", measured=stopping)
    assert any(name.startswith("network_discriminator.") for name in state)
    assert any(name.startswith("optimizer_discriminator.") for name in state)
    resumed = DistillationTrainer(load_teacher("digits"), RECIPE)
    resumed.restore(state)
    assert resumed.iteration == 6
    while resumed.iteration < RECIPE.iterations:
        resumed.step()
    assert torch.equal(weights(resumed.snapshot()), weights(straight))
    again = resume(tmp_path / "stopped", measured=UNMEASURED, trusted=True)  # from its checkpoint
    assert torch.equal(weights(again), weights(straight))


@pytest.mark.slow
def test_on_the_command_line(tmp_path, capsys, coarse):
    out = ["--out", str(tmp_path / "run"), "--evaluation-samples", "20", "--json"]
    assert main(["distill", "digits", "--method", METHOD, "--iterations", "3", "--batch", "8", *out]) == 0
    assert json.loads(capsys.readouterr().out)["student"]["nfe"] == 1
    run = RunFolder.open(tmp_path / "run")
    assert run.configuration()["method"] == "examples.adversarial:Adversarial(data='digits', weight=0.1, lr=0.001)"
    assert "Discriminator loss" in run.report.read_text()
    assert main(["plan", "digits", "--method", METHOD, "--gpu", "L4", "--gpus", "1"]) == 0
    assert "discriminator" in capsys.readouterr().out

    assert main(["distill", "--resume", str(run.path)]) == 2  # a stranger's run could name any code
    assert "--trust-code" in capsys.readouterr().err
    assert main(["evaluate", str(run.path), "--samples", "20", "--seeds", "1", "--json"]) == 0  # needs none of it
    assert main(["distill", "--resume", str(run.path), "--trust-code", "--evaluation-samples", "0"]) == 0


def test_images_of_another_shape_than_the_teachers_are_refused(tmp_path):
    in_folder(tmp_path, {"0.png": png(0), "1.png": png(1)})
    recipe = replace(RECIPE, method=Adversarial(str(tmp_path)))
    with pytest.raises(ValueError, match=r"shape = \(3, 4, 4\): must be \(1, 8, 8\).*--size, --channels and --pad"):
        DistillationTrainer(load_teacher("digits"), recipe)
