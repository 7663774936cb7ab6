"""The parts of the U-Nets, each against its own formula."""

import itertools
import math

import pytest
import torch
from scipy.signal import correlate2d
from torch.nn import functional
from unets import ADM, NCSNPP, TINY, filled, inputs

from simdistill.networks.block import DHARIWAL, SONG, Block, attend
from simdistill.networks.layers import Conv, ConvThenHalve, FourierEmbedding, PositionalEmbedding, Resample
from simdistill.networks.unet import DhariwalUNet, SongUNet


def idle(conv):
    """`conv` with the identity for its weights, so that its resampling is left."""
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[range(2), range(2), conv.margin, conv.margin] = 1
    return conv.double()


def test_the_box_filter_averages_and_repeats():
    x, *_ = inputs(batch=2, channels=2)
    torch.testing.assert_close(Resample("down", (1, 1)).double()(x), functional.avg_pool2d(x, 2))
    torch.testing.assert_close(Resample("up", (1, 1)).double()(x), x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    torch.testing.assert_close(idle(Conv(2, 2, 1, direction="down"))(x), functional.avg_pool2d(x, 2))
    torch.testing.assert_close(
        idle(Conv(2, 2, 1, direction="up"))(x), x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    )


def test_the_wide_filter_interpolates():
    x, *_ = inputs(batch=2, channels=2)

    def halved(x):  # along the last axis, zeros outside
        p = functional.pad(x, (1, 1))
        return (p[..., 0:-3:2] + 3 * p[..., 1:-2:2] + 3 * p[..., 2:-1:2] + p[..., 3::2]) / 8

    def doubled(x):
        p = functional.pad(x, (1, 1))
        pair = (p[..., :-2] + 3 * p[..., 1:-1]) / 4, (3 * p[..., 1:-1] + p[..., 2:]) / 4
        return torch.stack(pair, -1).flatten(-2)

    wide = [1, 3, 3, 1]
    torch.testing.assert_close(idle(Conv(2, 2, 3, 1.0, "down", wide))(x), halved(halved(x).mT).mT)
    torch.testing.assert_close(idle(Conv(2, 2, 3, 1.0, "up", wide))(x), doubled(doubled(x).mT).mT)
    torch.testing.assert_close(idle(ConvThenHalve(2, 2, 3, 1.0, "down", wide))(x), halved(halved(x).mT).mT)


def test_resampling_happens_before_the_convolution():
    x, *_ = inputs(batch=2, channels=2)
    conv = filled(Conv(2, 3, 3, direction="down"))
    torch.testing.assert_close(
        conv(x), functional.conv2d(functional.avg_pool2d(x, 2), conv.weight, conv.bias, padding=1)
    )
    conv = filled(Conv(2, 3, 3, direction="up"))
    doubled = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(conv(x), functional.conv2d(doubled, conv.weight, conv.bias, padding=1))


def test_the_residual_input_is_convolved_past_its_borders_and_then_halved():
    x, *_ = inputs(batch=2, channels=2)
    conv = filled(ConvThenHalve(2, 3, 3, 1.0, "down", [1, 3, 3, 1]))
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]).outer(torch.tensor([1.0, 3.0, 3.0, 1.0])) / 64
    for n, out in itertools.product(range(2), range(3)):
        convolved = sum(correlate2d(x[n, c], conv.weight[out, c].detach(), mode="full") for c in range(2))
        expected = correlate2d(convolved, taps, mode="valid")[::2, ::2] + conv.bias[out].item()
        torch.testing.assert_close(conv(x)[n, out].detach(), torch.from_numpy(expected))


def test_attention_is_scaled_dot_product_attention():
    q, k, v = 3 * torch.sin(torch.arange(3 * 2 * 6 * 5, dtype=torch.float64) ** 1.5).reshape(3, 2, 6, 5)
    expected = functional.scaled_dot_product_attention(q.mT, k.mT, v.mT).mT
    torch.testing.assert_close(attend(q, k, v), expected)
    assert (expected - v).abs().max() > 0.1


def test_attention_in_half_precision_does_not_overflow():
    q = torch.tensor([[[300.0, 300.0]]], dtype=torch.float16)
    v = torch.tensor([[[1.0, 3.0]]], dtype=torch.float16)  # equal logits of 90,000, beyond float16
    torch.testing.assert_close(attend(q, q, v), torch.full_like(v, 2.0))


@pytest.mark.parametrize(
    ("direction", "same"),
    [(None, True), (None, False), ("down", True), ("up", True)],
    ids=["same", "wider", "down", "up"],
)
@pytest.mark.parametrize(("style", "channels", "eps"), [(SONG, 16, 1e-6), (DHARIWAL, 128, 1e-5)], ids=["song", "adm"])
def test_a_block_is_its_formula(style, channels, eps, direction, same):
    in_channels, adm = channels if same else channels // 2, style is DHARIWAL
    block = filled(Block(in_channels, channels, 6, style, dropout=0.5, direction=direction, attention=True)).eval()
    x = 1e-3 * inputs(batch=2, channels=in_channels)[0]  # so small that the eps of the normalisation counts
    emb = torch.sin(torch.arange(12, dtype=torch.float64)).reshape(2, 6)
    w = block.state_dict()

    def norm(x, name):  # channels // 4 groups
        groups = x.reshape(len(x), x.shape[1] // 4, -1)
        spread = (groups.var(2, correction=0, keepdim=True) + eps).sqrt()
        normal = ((groups - groups.mean(2, keepdim=True)) / spread).reshape(x.shape)
        return normal * w[f"{name}.weight"][:, None, None] + w[f"{name}.bias"][:, None, None]

    def conv(x, name):
        return functional.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding="same")

    def resampled(x):
        if direction == "down":
            return functional.avg_pool2d(x, 2)
        return functional.interpolate(x, scale_factor=2, mode="nearest") if direction == "up" else x

    modulation = (emb @ w["affine.weight"].T + w["affine.bias"])[:, :, None, None]
    h = conv(resampled(functional.silu(norm(x, "norm0"))), "conv0")
    if adm:
        h = norm(h, "norm1") * (1 + modulation[:, :channels]) + modulation[:, channels:]
    else:
        h = norm(h + modulation, "norm1")
    h = conv(functional.silu(h), "conv1")
    mixed = not same or (direction is not None and not adm)
    y = h + (conv(resampled(x), "skip") if mixed else resampled(x))
    y = y if adm else y / math.sqrt(2)

    qkv = conv(norm(y, "norm2"), "qkv").flatten(2)
    heads = (2, 64) if adm else (1, 16)
    q, k, v = (qkv[:, i::3].unflatten(1, heads).mT for i in range(3))
    y = y + conv(functional.scaled_dot_product_attention(q, k, v).mT.reshape(y.shape), "proj")
    y = y if adm else y / math.sqrt(2)
    torch.testing.assert_close(block(x, emb), y, rtol=1e-9, atol=1e-9)


def test_small_and_large_normalisations_have_the_published_groups():
    groups = [Block(c, 4, 4, SONG, 0).norm0.num_groups for c in (1, 3, 8, 96, 128, 384)]
    assert groups == [1, 1, 2, 24, 32, 32]


def test_the_positional_embedding_is_sines_then_cosines_down_to_one_ten_thousandth():
    c = torch.tensor([-1.5, 0.25, 40.0], dtype=torch.float64)
    frequencies = [10_000 ** (-i / 3) for i in range(4)]
    expected = [[f(c_i * w) for f in (math.sin, math.cos) for w in frequencies] for c_i in c.tolist()]
    torch.testing.assert_close(PositionalEmbedding(8)(c), torch.tensor(expected, dtype=torch.float64))


def test_adms_positional_embedding_is_cosines_first_and_ends_above_one_ten_thousandth():
    c = torch.tensor([-1.5, 0.25, 40.0], dtype=torch.float64)
    expected = [[f(c_i * 10**-i) for f in (math.cos, math.sin) for i in range(4)] for c_i in c.tolist()]
    embedding = PositionalEmbedding(8, endpoint=False, sines_first=False)
    torch.testing.assert_close(embedding(c), torch.tensor(expected, dtype=torch.float64))


def test_the_fourier_embedding_is_sines_then_cosines_of_fixed_frequencies():
    torch.manual_seed(0)
    embedding = FourierEmbedding(8).double()
    c = torch.tensor([-1.5, 0.25], dtype=torch.float64)
    turns = [[2 * math.pi * c_i * f for f in embedding.freqs.tolist()] for c_i in c.tolist()]
    expected = [[f(turn) for f in (math.sin, math.cos) for turn in row] for row in turns]
    torch.testing.assert_close(embedding(c), torch.tensor(expected, dtype=torch.float64))
    assert 15 < FourierEmbedding(20_000).freqs.std() < 17
    assert not list(embedding.parameters())


def test_weights_start_xavier_uniform_and_the_residual_branches_near_zero():
    torch.manual_seed(0)
    net = SongUNet(**TINY, **NCSNPP)
    gains = {"conv1": 1e-5, "proj": 1e-5, "8x8_aux_conv": 1e-5, "qkv": math.sqrt(0.2)}
    for name, parameter in net.named_parameters():
        part = name.split(".")[-2]
        if "norm" in part:
            assert (parameter == (1 if name.endswith("weight") else 0)).all(), name
        elif name.endswith("bias"):
            assert (parameter == 0).all(), name
        else:
            out, fan_in, *size = parameter.shape
            bound = gains.get(part, 1) * math.sqrt(6 / (math.prod(size) * (fan_in + out)))
            assert 0.97 * bound < parameter.abs().max() <= bound, name
            assert parameter.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1), name


def test_adms_weights_start_uniform_over_the_fan_in_and_its_residual_branches_at_zero():
    torch.manual_seed(0)
    net = DhariwalUNet(**ADM)
    for name, parameter in net.named_parameters():
        part, bound = name.split(".")[-2], 1 / math.sqrt(net.get_submodule(name.rpartition(".")[0]).weight[0].numel())
        if "norm" in part:
            assert (parameter == (1 if name.endswith("weight") else 0)).all(), name
        elif part in ("conv1", "proj", "out_conv", "map_augment"):
            assert (parameter == 0).all(), name
        elif part == "map_label":
            assert 0.95 < parameter.std() < 1.05
            assert parameter.abs().max() > 2.5  # normal, not uniform
        else:
            assert parameter.abs().max() <= bound, name
            assert parameter.abs().max() > (0.97 if parameter.ndim > 1 else 0.9) * bound, name
            tolerance = 0.1 if parameter.ndim > 1 else 0.35
            assert parameter.std().item() == pytest.approx(bound / math.sqrt(3), rel=tolerance), name
