"""The trainer against a plain transcription of Algorithm 2, its schedules, accumulation, average and resumption."""

import copy
from dataclasses import replace

import pytest
import torch

from simdistill.distances import PseudoHuber
from simdistill.noise import sample
from simdistill.recipes import RECIPES
from simdistill.teachers.teacher import Teacher, load_teacher
from simdistill.training.ema import EMA
from simdistill.training.profile import NoiseProfile
from simdistill.training.randomness import stream
from simdistill.training.trainer import DistillationTrainer

RECIPE = replace(RECIPES["digits"], batch=8, iterations=20, warmup=4)


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def largest_change(a: torch.nn.Module, b: torch.nn.Module) -> float:
    return float((weights(a) - weights(b)).abs().max())


def test_a_step_is_algorithm_2_written_out():
    teacher = load_teacher("digits")
    recipe = replace(RECIPE, online_steps=2, warmup=0, decay="none")
    trainer = DistillationTrainer(teacher, recipe)
    trainer.step()

    d_q, d_psi, d_theta = (copy.deepcopy(load_teacher("digits").denoiser).requires_grad_(True) for _ in range(3))
    adams = [torch.optim.Adam(m.parameters(), lr=4e-4, betas=(0.0, 0.999)) for m in (d_psi, d_theta)]
    adams[0].param_groups[0]["lr"], adams[1].param_groups[0]["lr"] = recipe.online_lr, recipe.generator_lr
    rng = stream(recipe.seed, 0)

    def inputs(law):
        z, sigma = torch.randn(8, 1, 8, 8, generator=rng), sample(law, 8, rng)
        return z, sigma, torch.randn(8, 1, 8, 8, generator=rng), torch.randint(10, (8,), generator=rng)

    def g(z, labels):
        return d_theta(2.5 * z, torch.full((8,), 2.5), labels)

    for _ in range(2):
        z, sigma, eps, labels = inputs(recipe.online_noise)
        x_0, t = g(z, labels).detach(), sigma[:, None, None, None]
        error = d_psi(x_0 + t * eps, sigma, labels) - x_0
        weight = (sigma**2 + 0.75**2) / (sigma * 0.75) ** 2
        adams[0].zero_grad()
        (weight * error.square().sum((1, 2, 3))).mean().backward()
        adams[0].step()
    z, sigma, eps, labels = inputs(recipe.generator_noise)
    x_0, t = g(z, labels), sigma[:, None, None, None]
    x_t = x_0 + t * eps
    y = d_psi(x_t, sigma, labels) - d_q(x_t, sigma, labels)
    slope = y / torch.sqrt(y.square().sum((1, 2, 3), keepdim=True) + 0.03**2)
    adams[1].zero_grad()
    (-(slope * (d_psi(x_t, sigma, labels) - x_0)).sum((1, 2, 3))).mean().backward()
    adams[1].step()

    assert recipe.objective.distance == PseudoHuber(c=0.03)
    # With beta1 = 0 Adam's first step is lr sign(gradient): compare where no rounding can turn a sign.
    for ours, theirs, rate in (
        (trainer.online, d_psi, recipe.online_lr),
        (trainer.generator.denoiser, d_theta, recipe.generator_lr),
    ):
        close = (weights(ours) - weights(theirs)).abs() < 0.02 * rate
        assert close.double().mean() > 0.995
        assert largest_change(ours, teacher.denoiser) > 0.9 * rate


def test_accumulation_equals_one_large_batch():
    teacher = load_teacher("digits")
    gradients = []
    for accumulation in (1, 4):
        trainer = DistillationTrainer(teacher, replace(RECIPE, accumulation=accumulation))
        for optimizer in (trainer.online_optimizer, trainer.generator_optimizer):
            optimizer.register_step_pre_hook(
                lambda opt, *_: gradients.append(torch.cat([p.grad.flatten() for p in opt.param_groups[0]["params"]]))
            )
        trainer.step()
    whole, parts = gradients[:2], gradients[2:]
    assert (whole[0] - parts[0]).norm() < 1e-5 * whole[0].norm()
    # the second gradient follows the first update, whose signs rounding may turn: looser
    assert (whole[1] - parts[1]).norm() < 1e-2 * whole[1].norm()


def test_learning_rates_rise_and_fall():
    trainer = DistillationTrainer(load_teacher("digits"), RECIPE)
    rates = []
    for _ in range(20):
        trainer.step()
        rates.append(
            (trainer.online_optimizer.param_groups[0]["lr"], trainer.generator_optimizer.param_groups[0]["lr"])
        )
    online, generator = zip(*rates, strict=True)
    assert online == pytest.approx([RECIPE.online_lr * min(1, (i + 1) / 4) for i in range(20)])
    expected = [RECIPE.generator_lr * min(1, (i + 1) / 4) * (1 - i / 20) for i in range(20)]
    assert generator == pytest.approx(expected)


def test_resuming_gives_the_same_bits():
    teacher = load_teacher("digits")
    straight = DistillationTrainer(teacher, RECIPE)
    for _ in range(6):
        straight.step()
    first = DistillationTrainer(teacher, RECIPE)
    for _ in range(3):
        first.step()
    second = DistillationTrainer(teacher, RECIPE)
    second.restore({name: tensor.clone() for name, tensor in first.state().items()})
    for _ in range(3):
        second.step()
    assert second.iteration == 6
    for name, tensor in straight.state().items():
        assert torch.equal(tensor, second.state()[name]), name


def test_the_seed_decides():
    teacher = load_teacher("digits")
    runs = [DistillationTrainer(teacher, replace(RECIPE, seed=seed)) for seed in (0, 0, 1)]
    for run in runs:
        run.step()
    assert torch.equal(weights(runs[0].generator), weights(runs[1].generator))
    assert not torch.equal(weights(runs[0].generator), weights(runs[2].generator))


def test_a_teacher_without_weights_needs_a_start():
    with pytest.raises(ValueError, match=r"gaussians-25.*no weights to start from"):
        DistillationTrainer(load_teacher("gaussians-25"), RECIPE)


def test_networks_with_dropout_are_called_in_eval_mode():
    class Dropping(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.dropout = torch.nn.Linear(2, 2), torch.nn.Dropout(0.5)

        def forward(self, x_t, sigma, condition=None):
            return self.dropout(self.linear(x_t))

    trainer = DistillationTrainer(Teacher(Dropping().train(), (2,)), RECIPE)
    for module in (trainer.teacher.denoiser, trainer.online, trainer.generator, trainer.average):
        assert not any(m.training for m in module.modules())
    assert not any(p.requires_grad for p in trainer.teacher.denoiser.parameters())


@pytest.mark.parametrize(("half_life", "ramp_up"), [(100.0, 1e9), (40.0, 1e9)])
def test_ema_halves_the_memory_every_half_life(half_life, ramp_up):
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(module.weight)
    ema = EMA(module, half_life, ramp_up)
    torch.nn.init.zeros_(module.weight)
    for step in range(1, 21):
        ema.update(module, 10, 10 * step)
    assert float(ema.average.weight) == pytest.approx(0.5 ** (200 / half_life), rel=1e-5)


def test_ema_ramp_up_and_none():
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(module.weight)
    ramped, none = EMA(module, 1e6, 0.05), EMA(module, 0)
    torch.nn.init.zeros_(module.weight)
    ramped.update(module, 10, 100)  # half-life min(1e6, 0.05 * 100) = 5 images: two of them in a batch of 10
    none.update(module, 10, 10)
    assert float(ramped.average.weight) == pytest.approx(0.25)
    assert float(none.average.weight) == 0.0


def test_profile_means_by_noise_level():
    profile = NoiseProfile(0.01, 100.0, torch.device("cpu"), levels=4)  # edges 0.01 0.1 1 10 100
    profile.add_online(torch.tensor([1.0, 3.0]))
    profile.add_generator(
        torch.tensor([0.001, 0.05, 2.0, 500.0]), torch.tensor([1.0, 2.0, 3.0, 6.0]), torch.tensor([1.0, 2.0, 3.0, 4.0])
    )
    readings = profile.read()
    assert readings["loss"] == 2.0
    assert readings["generator_loss"] == 3.0
    assert readings["y"] == {"0.0316": 1.5, "3.16": 3.0, "31.6": 4.0}
    profile.add_online(torch.tensor([7.0]))
    profile.add_generator(torch.tensor([0.5]), torch.tensor([5.0]), torch.tensor([9.0]))
    assert profile.read() == {"loss": 7.0, "generator_loss": 5.0, "y": {"0.316": 9.0}}


def test_streams_are_reproducible_and_distinct():
    draws = {
        position: torch.randn(4, generator=stream(*position)).tolist()
        for position in [(0, 0), (0, 1), (1, 0), (1, 1), (0, 10), (10, 0)]
    }
    assert len({tuple(d) for d in draws.values()}) == len(draws)
    assert torch.randn(4, generator=stream(1, 1)).tolist() == draws[1, 1]
