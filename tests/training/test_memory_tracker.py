"""The tracker counts what tensors would take, and autocast on the CPU stands in for CUDA's."""

import copy
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional
from torch.nn.functional import linear, scaled_dot_product_attention

from simdistill.networks.mlp import MLP
from simdistill.training.memory_tracker import WORKING, hollow, without_data


def test_storages_are_held_as_long_as_somebody_holds_them():
    with without_data(gpu=False) as tracker:
        a = torch.empty(1000)
        view = a[:10].reshape(2, 5)
        assert tracker.held == {WORKING: 4000}
        del a
        assert tracker.held == {WORKING: 4000}
        b = view.double()  # 80 bytes
        assert tracker.held == tracker.peak == {WORKING: 4080}
        del view
        assert tracker.held == {WORKING: 80}
        assert tracker.peak == {WORKING: 4080}
        tracker.restart()
        tracker.assign([b], "weights")
        c = torch.cat([b, b])
        assert tracker.peak == tracker.busiest == {WORKING: 160, "weights": 80}
        tracker.assign([c], "weights")
        d = torch.empty(2)
        assert tracker.peak == {WORKING: 8, "weights": 240}
        assert tracker.busiest == {WORKING: 160, "weights": 80}
        del b, c, d
        assert tracker.held.total() == 0


def test_nothing_is_computed():
    with without_data(gpu=False) as tracker:
        huge = torch.empty(10**9, 10**3)
        assert tracker.held[WORKING] == 4 * 10**12
        assert (huge @ torch.empty(10**3, 7)).shape == (10**9, 7)
        assert tracker.flops == 2 * 10**9 * 10**3 * 7


def test_a_layer_costs_three_products_and_keeps_its_input():
    n, inputs, outputs = 8, 16, 32
    with without_data(gpu=False) as tracker:
        weight = torch.empty(outputs, inputs, requires_grad=True)
        x = torch.empty(n, inputs, requires_grad=True)
        tracker.restart()
        y = linear(x, weight)
        assert tracker.held[WORKING] == 4 * (outputs * inputs + n * inputs + n * outputs)
        y.sum().backward()
        assert tracker.flops == 3 * 2 * n * inputs * outputs


def test_attention_counts_its_two_products():
    n, heads, tokens, width = 2, 3, 16, 8
    with without_data(gpu=False) as tracker:
        q, k, v = (torch.empty(n, heads, tokens, width, requires_grad=True) for _ in range(3))
        tracker.restart()
        out = scaled_dot_product_attention(q, k, v)
        assert tracker.flops == 2 * 2 * n * heads * tokens**2 * width
        assert tracker.peak[WORKING] < 5 * 4 * q.numel()  # without the matrix of weights, twice as large
        out.sum().backward()
        assert tracker.flops == 7 * 2 * n * heads * tokens**2 * width  # its weights are computed once more


def test_a_copy_without_data_is_the_same_network():
    real = MLP((1, 4, 4), 32, 2, label_dim=3)
    with without_data(gpu=False) as tracker:
        ours = hollow(real)
        again = copy.deepcopy(ours).to("cpu")
        assert {n: (t.shape, t.dtype) for n, t in again.state_dict().items()} == {
            n: (t.shape, t.dtype) for n, t in real.state_dict().items()
        }
        assert isinstance(again, MLP)
        assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in again.parameters())
        sizes = 4 * sum(t.numel() for t in (*real.parameters(), *real.buffers()))
        assert tracker.held.total() == 2 * sizes


@contextmanager
def cuda_autocast():
    """CUDA's own autocast for tensors without data; `torch.autocast` would ask for a GPU."""
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.set_autocast_enabled("cuda", True)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.clear_autocast_cache()


@torch.no_grad()
def types_met(device):
    """On a pass through what the networks here are made of."""
    conv, project, scale = (torch.empty(size, device=device) for size in ((8, 8, 3, 3), (8, 8), 8))
    h = functional.silu(functional.group_norm(torch.empty(16, 8, 12, 12, device=device), 2, scale, scale))
    met = [h]
    met.append(functional.conv2d(h, conv, padding=1))
    met.append(functional.silu(functional.group_norm(met[-1], 2, scale, scale)))
    met.append(functional.conv2d(met[-1], conv, padding=1) + met[1])
    met.append(functional.layer_norm(met[-1].flatten(2).transpose(1, 2), (8,), scale))
    met.append(functional.gelu(linear(met[-1], project)))
    met.append(torch.einsum("btc,bsc->bts", met[-1], met[-1]).softmax(2))
    met.append(met[-1] @ met[-2])
    return [one.dtype for one in met]


def test_autocast_is_that_of_cuda():
    """The CPU in CUDA's place computes in the types of a GPU that is only pretended."""
    with without_data(gpu=False), cuda_autocast():
        expected = types_met("cuda")
    with without_data(gpu=True), torch.autocast("cpu", torch.bfloat16):
        assert types_met("cpu") == expected
    with without_data(gpu=False), torch.autocast("cpu", torch.bfloat16):
        assert types_met("cpu") != expected
    assert expected.count(torch.float32) == 4  # after norms and softmax
