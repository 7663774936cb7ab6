"""The benchmarks: the reference does what the trainer does, the page shows what was measured, the parts run."""

import copy
import json
import sys
from dataclasses import replace

import pytest
import torch
from draws import inputs

from benchmarks.__main__ import PAGE, RESULTS, main, published
from benchmarks.networks import NETWORKS
from benchmarks.reference import ReferenceLoop
from benchmarks.tables import Table, publish, spread
from benchmarks.variance import _total_variance
from simdistill.config.recipes import RECIPES
from simdistill.teachers.loading import load_teacher
from simdistill.training.trainer import DistillationTrainer

RECIPE = replace(RECIPES["digits"], batch=16, warmup=4, iterations=20, share_samples=False)
NOISE = {"online 0": RECIPE.online_noise, "generator": RECIPE.generator_noise}


def gradients_of(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """A list that receives the gradients that the optimizer steps along."""
    found: list[torch.Tensor] = []
    optimizer.register_step_pre_hook(
        lambda opt, *_: found.append(torch.cat([p.grad.flatten() for p in opt.param_groups[0]["params"]]))
    )
    return found


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def pair() -> tuple[DistillationTrainer, ReferenceLoop]:
    teacher = load_teacher("digits")
    return DistillationTrainer(teacher, RECIPE), ReferenceLoop(teacher.denoiser, RECIPE, teacher.shape, teacher.classes)


def test_both_loops_follow_the_same_gradients():
    trainer, loop = pair()
    for _ in range(3):  # at the start both denoisers are still alike
        trainer.step()
    online, generator = trainer.networks["online"], trainer.student
    state = copy.deepcopy(online.state_dict())
    for network in (loop.online, online):
        network.load_state_dict(state)
    loop.generator.load_state_dict(generator.denoiser.state_dict())
    batch = inputs(RECIPE, "online 0", RECIPE.online_noise, iteration=3)
    theirs, ours = gradients_of(trainer.steps["online"].optimizer), gradients_of(loop.online_adam)
    loss, _ = trainer.steps["online"]([batch], RECIPE.batch, RECIPE.online_lr)
    assert loop.update_online(*batch[:4]).item() == pytest.approx(float(loss.value.mean()), rel=1e-5)
    assert (ours[0] - theirs[0]).norm() < 1e-5 * theirs[0].norm()

    online.load_state_dict(state)
    loop.online.load_state_dict(state)
    batch = inputs(RECIPE, "generator", RECIPE.generator_noise, iteration=3)
    theirs, ours = gradients_of(trainer.steps["generator"].optimizer), gradients_of(loop.generator_adam)
    loss, _ = trainer.steps["generator"]([batch], RECIPE.batch, RECIPE.generator_lr)
    assert loop.update_generator(*batch[:4]).item() == pytest.approx(float(loss.value.mean()), rel=1e-4)
    assert (ours[0] - theirs[0]).norm() < 1e-5 * theirs[0].norm()


def test_a_step_of_both_loops_is_the_same():
    trainer, loop = pair()
    start = weights(loop.teacher)
    draws = {noise: inputs(RECIPE, name, noise)[:4] for name, noise in NOISE.items()}
    loop.draw = lambda noise: draws[noise]
    loop.step()
    trainer.step()
    rate = RECIPE.online_lr / RECIPE.warmup
    # With beta1 = 0 Adam's first step is lr sign(gradient): a share of them, at zero, may turn by rounding.
    for ours, theirs, moved in (
        (loop.online, trainer.networks["online"], rate),
        (loop.generator, trainer.student.denoiser, rate),
        (loop.average, trainer.snapshot().denoiser, rate * (1 - RECIPE.ema[0].decay(16, 16))),
    ):
        assert ((weights(ours) - weights(theirs)).abs() < 0.02 * moved).double().mean() > 0.995
        assert (weights(ours) - start).abs().max() == pytest.approx(moved, rel=1e-2)
    adams = {"online": loop.online_adam, "generator": loop.generator_adam}
    assert all(step.optimizer.param_groups[0]["lr"] == pytest.approx(rate) for step in trainer.steps.values())
    loop.iteration = trainer.iteration = 7
    loop.set_rates()
    trainer.step()
    for name, adam in adams.items():
        assert adam.param_groups[0]["lr"] == trainer.steps[name].optimizer.param_groups[0]["lr"]


def test_no_layer_of_the_measured_networks_is_dead():
    for network in NETWORKS.values():
        denoiser = network.make()
        x = torch.randn(2, *denoiser.shape, generator=torch.Generator().manual_seed(1))
        assert torch.equal(weights(denoiser), weights(network.make()))
        denoiser(x, torch.tensor([0.3, 2.0])).square().sum().backward()
        dead = [name for name, p in denoiser.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-6]
        assert dead == []


def test_total_variance_is_the_trace_of_the_covariance():
    draws = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gram = draws @ draws.T
    twice = torch.tensor([2.0, 0, 1, 1, 1, 1, 1], dtype=torch.float64)
    assert _total_variance(gram, torch.ones(7).double()) == pytest.approx(float(draws.var(0).sum()))
    again = torch.cat([draws[[0]], draws[[0]], draws[2:]])
    assert _total_variance(gram, twice) == pytest.approx(float(again.var(0).sum()))


def test_publishing_replaces_a_table_and_nothing_else():
    table = Table("speed", "Speed", ["a", "b"], [["1", "2"]])
    page = publish("before\n<!-- speed -->\nold\n<!-- end -->\nafter\n", [table])
    expected = "before\n<!-- speed -->\n**Speed**\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n<!-- end -->\nafter\n"
    assert page == publish(page, [table]) == expected
    with pytest.raises(ValueError, match="0 places for the table speed"):
        publish("no markers", [table])


def test_spread_is_median_and_quartiles():
    assert spread([5.0, 1.0, 3.0, 2.0, 4.0]) == "3.00 (2.00–4.00)"
    assert spread([2.0], 1) == "2.0"


def test_the_page_shows_what_was_measured():
    page = PAGE.read_text(encoding="utf-8")
    assert publish(page, published(json.loads(RESULTS.read_text(encoding="utf-8")))) == page


@pytest.mark.slow
def test_a_part_runs(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "variance", "--quick"])
    monkeypatch.setenv("COLUMNS", "200")
    before = RESULTS.read_bytes()
    main()
    printed = capsys.readouterr().out
    assert "20 draws of each, after 20 iterations" in printed
    assert len([line for line in printed.splitlines() if "│ online" in line or "│ generator" in line]) == 6
    assert RESULTS.read_bytes() == before  # a quick run keeps nothing


def test_an_unknown_part_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "speeed"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "unknown part speeed; known: first-minutes, iteration" in capsys.readouterr().err
