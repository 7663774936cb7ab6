"""The trainer against a plain transcription of Algorithm 2, its schedules, micro-batches, EMA and resumption."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from draws import inputs
from torch.utils._python_dispatch import TorchDispatchMode

from simdistill.config.recipes import RECIPES
from simdistill.method.algorithm import Loss, frozen
from simdistill.method.distances import PseudoHuber
from simdistill.method.ema import EMA, PowerEMA
from simdistill.method.noise import LogNormal
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.teacher import Teacher
from simdistill.training.processes import Processes
from simdistill.training.profile import NoiseProfile
from simdistill.training.trainer import DistillationTrainer

RECIPE = replace(RECIPES["digits"], batch=8, iterations=20, warmup=4, share_samples=False)


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def rate(trainer, network):
    return trainer.steps[network].optimizer.param_groups[0]["lr"]


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

    def g(z, labels):
        return d_theta(2.5 * z, torch.full((8,), 2.5), labels)

    for k in range(2):
        z, sigma, eps, labels, *_ = inputs(recipe, f"online {k}", recipe.online_noise)
        x_0, t = g(z, labels).detach(), sigma[:, None, None, None]
        error = d_psi(x_0 + t * eps, sigma, labels) - x_0
        weight = (sigma**2 + 0.75**2) / (sigma * 0.75) ** 2
        adams[0].zero_grad()
        (weight * error.square().sum((1, 2, 3))).mean().backward()
        adams[0].step()
    z, sigma, eps, labels, *_ = inputs(recipe, "generator", recipe.generator_noise)
    x_0, t = g(z, labels), sigma[:, None, None, None]
    x_t = x_0 + t * eps
    y = d_psi(x_t, sigma, labels) - d_q(x_t, sigma, labels)
    slope = y / torch.sqrt(y.square().sum((1, 2, 3), keepdim=True) + 0.03**2)
    adams[1].zero_grad()
    (-(slope * (d_psi(x_t, sigma, labels) - x_0)).sum((1, 2, 3))).mean().backward()
    adams[1].step()

    assert recipe.objective.distance == PseudoHuber(c=0.03)
    # With beta1 = 0 Adam's first step is lr sign(gradient): compare where no rounding can turn a sign.
    for ours, theirs, lr in (
        (trainer.networks["online"], d_psi, recipe.online_lr),
        (trainer.student.denoiser, d_theta, recipe.generator_lr),
    ):
        close = (weights(ours) - weights(theirs)).abs() < 0.02 * lr
        assert close.double().mean() > 0.995
        assert largest_change(ours, teacher.denoiser) > 0.9 * lr


def recorded(trainer, into):
    """Let `trainer` store the gradient of every optimizer step in the lists of `into`.

    Its online network is moved away from the teacher: y = 0 to the last bit would leave the generator rounding alone.
    """
    rng = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in trainer.networks["online"].parameters():
            p.add_(0.01 * torch.randn(p.shape, generator=rng))
    for name, step in trainer.steps.items():

        def keep(optimizer, *_, name=name):
            parameters = optimizer.param_groups[0]["params"]
            into.setdefault(name, []).append(torch.cat([p.grad.flatten() for p in parameters]))

        step.optimizer.register_step_pre_hook(keep)
    return trainer


@pytest.mark.parametrize(
    "change",
    [
        {"gradient_accumulation": 4},
        {"gradient_accumulation": 3, "batch": 9},
        {"gradient_accumulation": 2, "share_samples": True},
        {"gradient_checkpointing": True},
    ],
    ids=str,
)
def test_how_a_step_is_computed_does_not_change_it(change):
    """Parts of a batch, or blocks computed twice, give the gradients of a step done at once."""
    gradients = [{}, {}]
    changed = replace(RECIPE, **change, online_lr=1e-7)  # so that psi hardly moves before theta
    plain = replace(changed, gradient_accumulation=1, gradient_checkpointing=False)
    for recipe, into in zip((plain, changed), gradients, strict=True):
        recorded(DistillationTrainer(load_teacher("digits"), recipe), into).step()
    for name in ("online", "generator"):
        (a,), (b,) = gradients[0][name], gradients[1][name]
        assert (a - b).norm() < 3e-6 * a.norm(), name


def test_shared_samples_are_one_generator_forward_for_both_updates():
    """The same x_0 enters both losses, with noise of its own in each; the generator is called once an iteration."""
    recipe = replace(RECIPE, share_samples=True, online_lr=1e-7, warmup=0, decay="none")
    gradients = {}
    trainer = recorded(DistillationTrainer(load_teacher("digits"), recipe), gradients)
    calls = []
    trainer.student.register_forward_hook(lambda module, inputs, output: calls.append(output))
    trainer.step()
    assert len(calls) == 1

    other = recorded(DistillationTrainer(load_teacher("digits"), recipe), {})
    algorithm, players, online = other.method, other.players, other.networks["online"]
    psi, theta = inputs(recipe, "online 0", recipe.online_noise), inputs(recipe, "generator", recipe.generator_noise)
    with frozen(online):  # the generator is updated first, by a network that has not seen its samples
        algorithm.generator_loss(players, theta).value.mean().backward()
    (ours,) = gradients["generator"]
    theirs = torch.cat([p.grad.flatten() for p in other.student.parameters()])
    assert (ours - theirs).norm() < 1e-6 * theirs.norm()
    algorithm.online_loss(players, psi._replace(z=theta.z, condition=theta.condition)).value.mean().backward()
    (ours,) = gradients["online"]
    theirs = torch.cat([p.grad.flatten() for p in online.parameters()])
    assert (ours - theirs).norm() < 1e-6 * theirs.norm()


def test_the_online_network_collects_no_gradient_of_the_generators_loss():
    trainer = DistillationTrainer(load_teacher("digits"), RECIPE)
    seen = []
    online = trainer.networks["online"]
    trainer.steps["generator"].optimizer.register_step_pre_hook(
        lambda *_: seen.extend(p.grad is None for p in online.parameters())
    )
    trainer.step()
    assert seen
    assert all(seen)
    assert all(p.requires_grad for p in online.parameters())


def test_bfloat16_follows_float32():
    gradients = [{}, {}]
    for precision, into in zip(("fp32", "bf16"), gradients, strict=True):
        recipe = replace(RECIPE, precision=precision, online_lr=1e-7, generator_noise=LogNormal(0.0, 0.5))
        trainer = recorded(DistillationTrainer(load_teacher("digits"), recipe), into)
        trainer.step()
        assert all(p.dtype == torch.float32 for p in trainer.student.parameters())
    (exact,), (rounded,) = (g["online"] for g in gradients)
    assert 0 < (exact - rounded).norm() < 0.05 * exact.norm()  # eight bits a factor
    # y = d_psi - d_q is zero at the start, but for rounding: the generator's direction comes later


def scale(factor, steps):
    """As a state holds it."""
    return torch.tensor([factor, steps], dtype=torch.float64)


def test_float16_scales_the_loss_and_leaves_out_what_overflows():
    trainer = DistillationTrainer(load_teacher("digits"), replace(RECIPE, precision="fp16", warmup=0))
    gradients = {}
    recorded(trainer, gradients)
    before, online, generator = trainer.state(), trainer.steps["online"], trainer.steps["generator"]
    online.scale = (2.0**40, 0)  # overflows for certain
    trainer.step()
    after = trainer.state()
    assert online.scale == (2.0**39, 0)
    assert all(torch.equal(after[n], before[n]) for n in after if n.startswith("network_online."))
    assert all(math.isfinite(value) for name, value in trainer.metrics().items() if name != "levels")
    online.scale = (2.0**10, 0)
    state = trainer.state()
    trainer.restore({**state, "scale.online": scale(64.0, 7), "scale.generator": scale(128.0, 9)})
    assert (online.scale, generator.scale) == ((64.0, 7), (128.0, 9))
    trainer.step()
    first = "network_online.model.first.weight"
    assert not torch.equal(trainer.state()[first], before[first])
    exact = {}
    recorded(DistillationTrainer(load_teacher("digits"), RECIPE), exact).step()
    trainer.restore({**before, "scale.online": scale(64.0, 7), "scale.generator": scale(64.0, 7)})
    trainer.step()
    assert (gradients["online"][-1] - exact["online"][0]).norm() < 0.02 * exact["online"][0].norm()


def test_a_step_never_waits_for_the_device():
    """No number is fetched from the device (`.item()` and the like) between the draws and the EMA."""

    class Watching(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            assert function is not torch.ops.aten._local_scalar_dense.default, "a number is fetched"
            return function(*args, **(kwargs or {}))

    trainer = DistillationTrainer(load_teacher("digits"), replace(RECIPE, online_steps=2))
    with Watching():
        trainer.step()
        with pytest.raises(AssertionError, match="a number is fetched"):
            float(trainer.profile.sums["y_norm"].sum())


def test_every_rollback_halves_the_rates():
    trainer = DistillationTrainer(load_teacher("digits"), replace(RECIPE, warmup=0, decay="none"))
    trainer.rollbacks = 2
    trainer.step()
    assert rate(trainer, "online") == RECIPE.online_lr / 4
    assert rate(trainer, "generator") == RECIPE.generator_lr / 4
    other = DistillationTrainer(load_teacher("digits"), RECIPE)
    other.restore(trainer.state())
    assert (other.iteration, other.rollbacks) == (1, 2)


def test_a_batch_too_small_for_its_parts_is_refused():
    with pytest.raises(ValueError, match=r"batch = 8: must be at least processes × gradient_accumulation = 12"):
        DistillationTrainer(load_teacher("digits"), replace(RECIPE, gradient_accumulation=4), processes=Processes(0, 3))


def test_learning_rates_rise_and_fall():
    trainer = DistillationTrainer(load_teacher("digits"), RECIPE)
    rates = []
    for _ in range(20):
        trainer.step()
        rates.append((rate(trainer, "online"), rate(trainer, "generator")))
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
    snapshot = first.state()
    first.step()  # does not change it
    second.restore(snapshot)
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
    assert torch.equal(weights(runs[0].student), weights(runs[1].student))
    assert not torch.equal(weights(runs[0].student), weights(runs[2].student))


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
    for module in (*trainer.players.values(), trainer.snapshot()):
        assert not any(m.training for m in module.modules())
    trainer.step()
    assert all(p.grad is None for p in trainer.players["teacher"].parameters())


def test_several_ema_at_once():
    recipe = replace(RECIPE, ema=(EMA(0), EMA(40, ramp_up=1e9), PowerEMA(0.2)))
    trainer = DistillationTrainer(load_teacher("digits"), recipe)
    course = [weights(trainer.student)]
    for _ in range(10):
        trainer.step()
        course.append(weights(trainer.student))
    assert torch.equal(weights(trainer.snapshot(0)), course[-1])
    halved = course[0]
    for theta in course[1:]:
        halved = halved + (theta - halved) * (1 - 0.5 ** (8 / 40))
    torch.testing.assert_close(weights(trainer.snapshot(1)), halved, rtol=0, atol=1e-6)
    power = course[0]
    for k, theta in enumerate(course[1:], start=1):
        power = power + (theta - power) * (1 - (1 - 1 / k) ** (PowerEMA(0.2).exponent + 1))
    torch.testing.assert_close(weights(trainer.snapshot(2)), power, rtol=0, atol=1e-6)
    snapshot = trainer.snapshot(1)
    trainer.step()
    assert not torch.equal(weights(trainer.snapshot(1)), weights(snapshot))
    assert not any(p.requires_grad for p in snapshot.parameters())


def test_profile_means_by_noise_level():
    def told(value, **metrics):
        return Loss(torch.tensor(value), {name: torch.tensor(numbers) for name, numbers in metrics.items()})

    profile = NoiseProfile(0.01, 100.0, torch.device("cpu"), levels=4)  # edges 0.01 0.1 1 10 100
    profile.add("online", torch.tensor([0.5, 5.0]), told([1.0, 3.0]), torch.tensor(8.0))
    four, one = told([1.0, 2.0, 3.0, 6.0], y_norm=[1.0, 2.0, 3.0, 4.0]), told([8.0], y_norm=[5.0])
    profile.add("generator", torch.tensor([0.001, 0.05, 2.0, 500.0]), four, torch.tensor(10.0))
    profile.add("generator", torch.tensor([0.5]), one, torch.tensor(30.0))
    assert profile.read() == {
        "online_loss": 2.0,
        "online_gradient_norm": 8.0,
        "generator_loss": 4.0,
        "generator_gradient_norm": 20.0,
        "y_norm": 3.0,
        "levels": {"y_norm": {"0.0316": 1.5, "0.316": 5.0, "3.16": 3.0, "31.6": 4.0}},
    }
    profile.add("online", torch.tensor([0.5]), told([7.0]), torch.tensor(2.0))
    profile.add("generator", torch.tensor([0.5]), told([5.0], y_norm=[9.0], own=[2.0]), torch.tensor(4.0))
    assert profile.read() == {
        "online_loss": 7.0,
        "online_gradient_norm": 2.0,
        "generator_loss": 5.0,
        "generator_gradient_norm": 4.0,
        "y_norm": 9.0,
        "own": 2.0,
        "levels": {"y_norm": {"0.316": 9.0}, "own": {"0.316": 2.0}},
    }
