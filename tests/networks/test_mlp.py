import pytest
import torch
from torch.nn.functional import layer_norm, one_hot, silu

from simdistill.networks.mlp import MLP

DIGITS = {"shape": (1, 8, 8), "width": 256, "depth": 3, "label_dim": 10}


def filled(**arguments):
    """A float64 network none of whose layers is zero, as after some training."""
    torch.manual_seed(0)
    net = MLP(**arguments).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return net


def inputs(rng, shape=(1, 4, 4), n=6):
    x = torch.randn(n, *shape, generator=rng, dtype=torch.float64)
    noise = torch.linspace(-2.3, 1.1, n, dtype=torch.float64)  # ln(sigma)/4 of 1e-4 … 80
    return x, noise, one_hot(torch.arange(n) % 3, 3).double()


def test_the_network_of_the_digits_has_its_parameters():
    assert sum(p.numel() for p in MLP(**DIGITS).parameters()) == 332_032


@pytest.mark.parametrize("arguments", [DIGITS, {"shape": (2,), "octaves": 4}, {"shape": (5,), "width": 7, "depth": 1}])
def test_the_recorded_arguments_build_the_same_network(arguments, rng):
    net = MLP(**arguments)
    twin = MLP(**net.arguments)
    assert twin.arguments == net.arguments
    assert net.arguments.items() >= {**arguments, "shape": list(arguments["shape"])}.items()
    torch.nn.init.normal_(net.last.weight)
    twin.load_state_dict(net.state_dict())
    x, labels = torch.randn(4, *arguments["shape"], generator=rng), arguments.get("label_dim", 0)
    given = x, torch.zeros(4), torch.eye(labels)[:4] if labels else None
    torch.testing.assert_close(twin(*given), net(*given), rtol=0, atol=0)


def test_the_output_starts_at_zero_in_the_inputs_shape(rng):
    x, noise, labels = (a.float() for a in inputs(rng))
    torch.testing.assert_close(MLP((1, 4, 4), 16, 2, 3)(x, noise, labels), torch.zeros(6, 1, 4, 4), rtol=0, atol=0)


def test_the_network_is_the_documented_formula(rng):
    net = filled(shape=(1, 4, 4), width=16, depth=2, label_dim=3)
    x, noise, labels = inputs(rng)
    p = net.state_dict()
    octaves = torch.tensor([0.25, 0.5, 1, 2, 4, 8, 16, 32], dtype=torch.float64)
    phase = torch.pi * noise[:, None] * octaves
    fourier = torch.cat([phase.cos(), phase.sin()], 1)
    emb = fourier @ p["map_noise.weight"].T + p["map_noise.bias"] + labels @ p["map_label.weight"].T
    h = x.flatten(1) @ p["first.weight"].T + p["first.bias"]
    for k in range(2):
        modulation = silu(emb) @ p[f"blocks.{k}.modulation.weight"].T + p[f"blocks.{k}.modulation.bias"]
        scale, shift = modulation[:, :16], modulation[:, 16:]
        inner = silu(layer_norm(h, (16,)) * (1 + scale) + shift)
        h = h + inner @ p[f"blocks.{k}.linear.weight"].T + p[f"blocks.{k}.linear.bias"]
    expected = (silu(h) @ p["last.weight"].T + p["last.bias"]).reshape(x.shape)
    # the buffer of frequencies was made in float32
    torch.testing.assert_close(net(x, noise, labels), expected, rtol=1e-4, atol=1e-4)


def test_octaves_are_sines_and_cosines_of_every_coordinate_before_the_first_layer(rng):
    net, plain = filled(shape=(2,), width=16, depth=2, octaves=3), filled(shape=(14,), width=16, depth=2)
    plain.load_state_dict({**net.state_dict(), "last.weight": torch.zeros(14, 16), "last.bias": torch.zeros(14)})
    x, noise, _ = inputs(rng, shape=(2,))
    phases = [[2**k * torch.pi * x[:, i] for k in range(3)] for i in range(2)]
    angles = torch.stack([*phases[0], *phases[1]], 1)
    with torch.no_grad():
        plain.last.weight[:2], plain.last.bias[:2] = net.last.weight, net.last.bias
    expected = plain(torch.cat([x, angles.cos(), angles.sin()], 1), noise)[:, :2]
    torch.testing.assert_close(net(x, noise), expected, rtol=1e-4, atol=1e-4)  # the octaves are float32


def test_a_batch_is_answered_sample_by_sample(rng):
    net, given = filled(shape=(1, 4, 4), width=16, depth=2, label_dim=3), inputs(rng)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(net(*(a[order] for a in given)), net(*given)[order])
    torch.testing.assert_close(torch.cat([net(*(a[i : i + 1] for a in given)) for i in range(6)]), net(*given))


def test_noise_level_and_label_change_the_answer(rng):
    net, (x, noise, labels) = filled(shape=(1, 4, 4), width=16, depth=2, label_dim=3), inputs(rng)
    answer = net(x, noise, labels)
    for changed in (net(x, noise + 0.1, labels), net(x, noise, labels.roll(1, 1)), net(x, noise)):
        assert ((changed - answer).flatten(1).norm(dim=1) > 1e-2 * answer.flatten(1).norm(dim=1)).all()
    torch.testing.assert_close(net(x, noise, torch.zeros_like(labels)), net(x, noise))


def test_an_unconditional_network_has_no_label_weights():
    assert not [name for name in MLP((4,)).state_dict() if "label" in name]
    assert not {"frequencies", "octaves"} & MLP((4,), octaves=2).state_dict().keys()


def test_gradients_reach_every_parameter_and_the_input(rng):
    net, (x, noise, labels) = filled(shape=(1, 4, 4), width=16, depth=2, label_dim=3), inputs(rng)
    net(x.requires_grad_(), noise, labels).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []
    assert (x.grad.abs() > 0).all()


def test_a_network_at_its_start_learns_through_its_last_layer(rng):
    net, (x, noise, labels) = MLP((1, 4, 4), 16, 2, 3).double(), inputs(rng)
    (net(x, noise, labels) - x).square().sum().backward()
    assert net.last.weight.grad.abs().max() > 0
    assert net.last.bias.grad.abs().max() > 0


@pytest.mark.parametrize("name", ["width", "depth"])
def test_sizes_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"^{name} = 0: must be at least 1"):
        MLP((4,), **{name: 0})


def test_a_negative_number_of_octaves_is_refused():
    with pytest.raises(ValueError, match=r"^octaves = -1: must be at least 0"):
        MLP((4,), octaves=-1)
