"""Adam without a stored first moment against torch's own, bit by bit."""

import pytest
import torch

from simdistill.training.adam import AdamWithoutMomentum
from simdistill.training.state import restore, state_of

SHAPES = [(300, 70), (7,), (), (4, 3, 3, 3)]


def pair(rng, **hyperparameters):
    """The same parameters under our optimizer and torch's."""
    values = [torch.randn(shape, generator=rng) for shape in SHAPES]
    ours, theirs = ([torch.nn.Parameter(v.clone()) for v in values] for _ in range(2))
    beta_2 = hyperparameters.get("beta_2", 0.999)
    torchs = torch.optim.Adam(theirs, lr=1e-3, betas=(0.0, beta_2), eps=hyperparameters.get("eps", 1e-8), fused=True)
    return ours, theirs, AdamWithoutMomentum(ours, lr=1e-3, **hyperparameters), torchs


@pytest.mark.parametrize("hyperparameters", [{}, {"beta_2": 0.9}, {"eps": 1e-3}], ids=str)
def test_every_step_is_that_of_torch_to_the_bit(rng, hyperparameters):
    ours, theirs, a, b = pair(rng, **hyperparameters)
    for step in range(60):
        for p, q in zip(ours, theirs, strict=True):
            if step % 7 == 3 and p.ndim == 1:
                p.grad = q.grad = None  # a parameter that takes no part
                continue
            # gradients of all sizes, zeros among them
            g = torch.randn(p.shape, generator=rng) * 10 ** (4 * torch.randn(p.shape, generator=rng))
            g = torch.where(torch.rand(p.shape, generator=rng) < 0.05, 0.0, g)
            p.grad, q.grad = g.clone(), g.clone()
        for optimizer in (a, b):
            optimizer.param_groups[0]["lr"] = 1e-3 / (1 + step)
            optimizer.step()
        assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True)), step
    for p, q in zip(ours, theirs, strict=True):
        assert torch.equal(a.state[p]["exp_avg_sq"], b.state[q]["exp_avg_sq"])


def test_it_stores_one_number_a_weight(rng):
    ours, _, optimizer, torchs = pair(rng)
    for parameters in (ours, torchs.param_groups[0]["params"]):
        for p in parameters:
            p.grad = torch.ones_like(p)
    optimizer.step()
    torchs.step()
    weights = sum(p.numel() for p in ours)
    sizes = [sum(t.numel() for t in state_of({"it": o}).values()) - len(SHAPES) for o in (optimizer, torchs)]
    assert sizes == [weights, 2 * weights]
    assert sorted(optimizer.state[ours[0]]) == ["exp_avg_sq", "step"]


def test_loss_scaling_sees_it_as_torchs(rng):
    """GradScaler scales alike, and leaves out a step whose gradient overflowed."""
    ours, theirs, a, b = pair(rng)
    for scale in (4.0, 1024.0):
        scalers = [torch.amp.GradScaler("cpu", init_scale=scale) for _ in range(2)]
        for finite in (True, False, True):
            for parameters, optimizer, scaler in ((ours, a, scalers[0]), (theirs, b, scalers[1])):
                loss = sum((p * torch.linspace(1, 2, p.numel()).reshape(p.shape)).sum() for p in parameters)
                scaler.scale(loss if finite else loss * torch.inf).backward()
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
            assert scalers[0].get_scale() == scalers[1].get_scale()
            assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))


def test_its_state_comes_back_in_the_layout_of_the_parameters(rng):
    """Fused kernels pair numbers by their place in memory: a channels_last weight needs a channels_last moment."""
    weight = torch.nn.Parameter(torch.randn(4, 3, 3, 3, generator=rng).to(memory_format=torch.channels_last))
    twin = torch.nn.Parameter(weight.detach().clone(memory_format=torch.preserve_format))
    optimizers = [AdamWithoutMomentum([p], lr=1e-3) for p in (weight, twin)]
    gradients = torch.randn(2, 4, 3, 3, 3, generator=rng)
    for p, optimizer in zip((weight, twin), optimizers, strict=True):
        p.grad = gradients[0].to(memory_format=torch.channels_last)
        optimizer.step()
    state = state_of({"it": optimizers[1]})
    restore({"it": optimizers[1]}, state)
    for p, optimizer in zip((weight, twin), optimizers, strict=True):
        p.grad = gradients[1].to(memory_format=torch.channels_last)
        optimizer.step()
    assert torch.equal(weight, twin)
    assert state["it.0.step"] == 1  # not changed by the step after
