import inspect
import itertools
import json
import math

import pytest
import torch
from scipy.signal import correlate2d
from torch.nn import functional

from simdistill.networks.block import DHARIWAL, SONG, Block, attend
from simdistill.networks.layers import Conv, ConvThenHalve, FourierEmbedding, PositionalEmbedding, Resample
from simdistill.networks.unet import DhariwalUNet, SongUNet

TINY = {
    "img_resolution": 8,
    "in_channels": 1,
    "out_channels": 1,
    "label_dim": 10,
    "augment_dim": 9,
    "model_channels": 32,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
}
NCSNPP = {
    "embedding_type": "fourier",
    "encoder_type": "residual",
    "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1],
}
ADM = TINY | {"model_channels": 64}  # heads have 64 channels
CIFAR = {"img_resolution": 32, "in_channels": 3, "out_channels": 3, "augment_dim": 9, "channel_mult": [2, 2, 2]}
FFHQ = CIFAR | {"img_resolution": 64, "channel_mult": [1, 2, 2, 2]}

IMAGENET = {"img_resolution": 64, "in_channels": 3, "out_channels": 3, "label_dim": 1000}

networks = pytest.mark.parametrize("name", ["ddpmpp", "ncsnpp", "adm"])


def tiny(name, **changes):
    """A small network of the family."""
    if name == "adm":
        return DhariwalUNet(**ADM | changes)
    return SongUNet(**TINY | (NCSNPP if name == "ncsnpp" else {}) | changes)


def filled(net):
    """`net` in float64 with every parameter and frequency a closed-form number of order one: none is negligible."""
    with torch.no_grad():
        for k, (name, tensor) in enumerate(sorted(net.double().state_dict().items())):
            if name.endswith("resample_filter"):
                continue
            wave = torch.sin(math.sqrt(2) * torch.arange(tensor.numel(), dtype=torch.float64) ** 2 + k).reshape(
                tensor.shape
            )
            fan_in = tensor[0].numel()
            if tensor.ndim > 1:
                tensor.copy_(wave * math.sqrt((4 if "qkv" in name else 2) / fan_in))
            else:
                tensor.copy_(1 + 0.3 * wave if "norm" in name and name.endswith("weight") else 0.3 * wave)
    return net


def inputs(batch=3, size=8, channels=1):
    """Images, c_noise, one-hot classes and augmentation labels, in closed form."""
    x = torch.cos(math.sqrt(3) * torch.arange(batch * channels * size**2, dtype=torch.float64) ** 2)
    classes = functional.one_hot(torch.tensor([1, 7, 3])[:batch], 10).double()
    augment = torch.sin(torch.arange(batch * 9, dtype=torch.float64)).reshape(batch, 9)
    return (1.4 * x).reshape(batch, channels, size, size), torch.linspace(-1.2, 0.9, batch).double(), classes, augment


# ---- the published checkpoints


@pytest.mark.parametrize(
    ("network", "arguments", "parameters", "tensors"),
    [
        (SongUNet, CIFAR, 55_733_891, 425),
        (SongUNet, CIFAR | {"label_dim": 10}, 55_735_299, 427),
        (SongUNet, CIFAR | NCSNPP, 56_397_827, 432),
        (SongUNet, CIFAR | NCSNPP | {"label_dim": 10}, 56_400_643, 434),
        (SongUNet, FFHQ, 61_805_571, 553),
        (SongUNet, FFHQ | NCSNPP, 62_761_091, 563),
        (DhariwalUNet, IMAGENET, 295_899_267, 553),
    ],
    ids=["cifar-uncond-vp", "cifar-cond-vp", "cifar-uncond-ve", "cifar-cond-ve", "ffhq-vp", "ffhq-ve", "imagenet-adm"],
)
def test_the_published_networks_have_their_parameters_and_tensors(network, arguments, parameters, tensors):
    with torch.device("meta"):
        net = network(**arguments)
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert len(net.state_dict()) == tensors  # parameters and persistent buffers, as in the published files


def layer(name, *parts, bias=True):
    return {f"{name}.{part}.{kind}" for part in parts for kind in (("weight", "bias") if bias else ("weight",))}


def test_every_state_dict_name_of_a_tiny_network_is_the_published_one():
    block = ("norm0", "conv0", "affine", "norm1", "conv1")
    attention = ("norm2", "qkv", "proj")
    ddpmpp = {
        *{"map_augment.weight", "map_label.weight", "map_label.bias"},
        *{"map_layer0.weight", "map_layer0.bias", "map_layer1.weight", "map_layer1.bias"},
        *layer("enc", "8x8_conv"),
        *layer("enc.8x8_block0", *block),
        *layer("enc.4x4_down", *block, "skip"),
        *{"enc.4x4_down.conv0.resample_filter", "enc.4x4_down.skip.resample_filter"},
        *layer("enc.4x4_block0", *block, "skip", *attention),
        *layer("dec.4x4_in0", *block, *attention),
        *layer("dec.4x4_in1", *block),
        *layer("dec.4x4_block0", *block, "skip"),
        *layer("dec.4x4_block1", *block, "skip", *attention),
        *layer("dec.8x8_up", *block, "skip"),
        *{"dec.8x8_up.conv0.resample_filter", "dec.8x8_up.skip.resample_filter"},
        *layer("dec.8x8_block0", *block, "skip"),
        *layer("dec.8x8_block1", *block, "skip"),
        *layer("dec", "8x8_aux_norm", "8x8_aux_conv"),
    }
    ncsnpp = {
        *{"map_noise.freqs", "enc.4x4_aux_residual.resample_filter"},
        *layer("enc", "4x4_aux_residual"),
    }
    assert set(SongUNet(**TINY).state_dict()) == ddpmpp
    assert set(SongUNet(**TINY, **NCSNPP).state_dict()) == ddpmpp | ncsnpp
    adm = {
        *{"map_augment.weight", "map_label.weight"},
        *{"map_layer0.weight", "map_layer0.bias", "map_layer1.weight", "map_layer1.bias"},
        *layer("enc", "8x8_conv"),
        *layer("enc.8x8_block0", *block),
        *layer("enc.4x4_down", *block),
        *{"enc.4x4_down.conv0.resample_filter", "enc.4x4_down.skip.resample_filter"},
        *layer("enc.4x4_block0", *block, "skip", *attention),
        *layer("dec.4x4_in0", *block, *attention),
        *layer("dec.4x4_in1", *block),
        *layer("dec.4x4_block0", *block, "skip", *attention),
        *layer("dec.4x4_block1", *block, "skip", *attention),
        *layer("dec.8x8_up", *block),
        *{"dec.8x8_up.conv0.resample_filter", "dec.8x8_up.skip.resample_filter"},
        *layer("dec.8x8_block0", *block, "skip"),
        *layer("dec.8x8_block1", *block, "skip"),
        *layer("out_norm", ""),
        *layer("out_conv", ""),
    }
    assert set(DhariwalUNet(**ADM).state_dict()) == {name.replace("..", ".") for name in adm}


def test_shapes_that_names_do_not_tell():
    shapes = {name: tuple(tensor.shape) for name, tensor in SongUNet(**TINY, **NCSNPP).state_dict().items()}
    assert shapes["map_noise.freqs"] == (32,)
    assert shapes["map_label.weight"] == (64, 10)
    assert shapes["map_augment.weight"] == (64, 9)
    assert shapes["map_layer0.weight"] == (128, 64)
    assert shapes["enc.4x4_aux_residual.weight"] == (32, 1, 3, 3)
    assert shapes["enc.4x4_aux_residual.resample_filter"] == (1, 1, 4, 4)
    assert shapes["enc.4x4_block0.affine.weight"] == (64, 128)
    assert shapes["enc.4x4_block0.qkv.weight"] == (192, 64, 1, 1)
    assert shapes["dec.4x4_block0.conv0.weight"] == (64, 64 + 64, 3, 3)
    assert shapes["dec.4x4_block1.conv0.weight"] == (64, 64 + 32, 3, 3)
    assert shapes["dec.8x8_block0.skip.weight"] == (32, 64 + 32, 1, 1)
    shapes = {name: tuple(tensor.shape) for name, tensor in DhariwalUNet(**ADM).state_dict().items()}
    assert shapes["map_label.weight"] == (256, 10)
    assert shapes["map_augment.weight"] == (64, 9)
    assert shapes["enc.4x4_block0.affine.weight"] == (2 * 128, 256)
    assert shapes["enc.4x4_down.skip.resample_filter"] == (1, 1, 2, 2)
    wide = DhariwalUNet(**ADM | {"channel_mult": [2, 3]})
    assert wide.enc["8x8_conv"].weight.shape == (128, 1, 3, 3)  # as wide as its blocks; Song's has model_channels


@pytest.mark.parametrize(
    ("resolutions", "attending"),
    [
        ([], {"dec.4x4_in0"}),
        ([8], {"enc.8x8_block0", "enc.8x8_block1", "dec.4x4_in0", "dec.8x8_block2"}),
        ([4], {"enc.4x4_block0", "enc.4x4_block1", "dec.4x4_in0", "dec.4x4_block2"}),
    ],
)
def test_the_decoder_attends_only_at_the_bottom_and_in_last_blocks(resolutions, attending):
    net = SongUNet(**TINY | {"attn_resolutions": resolutions, "num_blocks": 2})
    assert {name.removesuffix(".qkv.weight") for name in net.state_dict() if name.endswith("qkv.weight")} == attending


def test_adm_attends_in_every_block_of_its_resolutions_with_a_head_for_64_channels():
    net = DhariwalUNet(**ADM | {"num_blocks": 2, "channel_mult": [2, 3]})
    heads = {
        f"{half}.{name}": block.heads
        for half in ("enc", "dec")
        for name, block in getattr(net, half).items()
        if isinstance(block, Block) and block.heads
    }
    at_four = ("enc.4x4_block0", "enc.4x4_block1", "dec.4x4_in0", *(f"dec.4x4_block{i}" for i in range(3)))
    assert heads == dict.fromkeys(at_four, 3)
    everywhere = DhariwalUNet(**ADM | {"attn_resolutions": [8, 4]}).state_dict()
    assert sum(name.endswith("qkv.weight") for name in everywhere) == 2 + 1 + 2 * 2
    assert not any("qkv" in name for name in DhariwalUNet(**TINY | {"model_channels": 28}).state_dict())  # 0 heads
    with pytest.raises(ValueError, match=r"channels = 224: must be a multiple of 3, its attention heads"):
        DhariwalUNet(**ADM | {"model_channels": 112})


# What NVIDIA Modulus 0.6.0 (Apache-2.0, a descendant of the published code) answers with the same weights and inputs in
# float64, its attention and frequencies as well, in training mode without dropout: its evaluation mode normalises
# differently.
REFERENCE = {
    "ddpmpp": "0.182313089  0.549115882  0.572777711 0.200814974 0.306688612 -0.382377605 -0.326947983 0.356048930",
    "ncsnpp": "-0.187468368 -0.127898540 -0.115338830 0.018497591 0.365381737 0.101032094 -0.412935218 0.170026279",
    "adm": "-0.668804891 -0.220540464 -0.554923548 -0.698574405 -1.783115986 -1.158406079 -0.904255911 -1.256893092",
}


@networks
def test_the_answers_are_those_of_the_published_network(name):
    changes = {"out_channels": 2, "attn_resolutions": [8, 4], "channel_mult": [1, 2, 3]}
    net = filled(tiny(name, **changes if name == "adm" else {"channel_mult": [1, 2, 2]})).eval()
    y = net(*inputs()).flatten()
    expected = torch.tensor([float(number) for number in REFERENCE[name].split()], dtype=torch.float64)
    torch.testing.assert_close(y[:: len(y) // 8][:8], expected, rtol=0, atol=2e-9)


# ---- the parts, each against its own formula


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


# ---- the whole


@networks
def test_a_batch_is_answered_sample_by_sample(name):
    net = filled(tiny(name)).eval()
    given = inputs()
    one_by_one = torch.cat([net(*(a[i : i + 1] for a in given)) for i in range(3)])
    assert one_by_one.shape == (3, 1, 8, 8)
    torch.testing.assert_close(net(*given), one_by_one)


@networks
def test_mirroring_the_input_mirrors_the_output_of_a_network_with_mirrored_kernels(name):
    net = filled(tiny(name)).eval()  # so that no resampling shifts the image by a pixel or half of one
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 4:
                parameter.copy_((parameter + parameter.flip(3)) / 2)
    x, *others = inputs()
    torch.testing.assert_close(net(x.flip(3), *others), net(x, *others).flip(3))
    assert (net(x, *others) - net(x, *others).flip(3)).abs().max() > 0.1


@networks
def test_gradients_reach_every_parameter_and_the_input(name):
    net = tiny(name) if name != "adm" else filled(tiny(name)).float()  # whose branches start at zero
    x, *others = (a.float() for a in inputs())
    net(x.requires_grad_(), *others).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []
    assert (x.grad.abs() > 0).all()


@networks
def test_every_condition_changes_the_answer_and_none_means_zeros(name):
    net = filled(tiny(name)).eval()
    x, noise, classes, augment = inputs()
    y = net(x, noise, classes, augment)
    for other in (
        net(x, noise + 0.1, classes, augment),
        net(x, noise, classes.roll(1, dims=1), augment),
        net(x, noise, classes, -augment),
    ):
        assert ((y - other).flatten(1).norm(dim=1) > 1e-3 * y.flatten(1).norm(dim=1)).all()
    torch.testing.assert_close(net(x, noise), net(x, noise, 0 * classes, 0 * augment), rtol=0, atol=0)
    torch.testing.assert_close(net(x, noise, classes.long(), augment), y, rtol=0, atol=0)


@pytest.mark.parametrize(("name", "scale"), [("ddpmpp", math.sqrt(10)), ("adm", 1.0)])
def test_songs_one_hot_labels_are_scaled_to_unit_mean_square_and_adms_are_not(name, scale):
    net = filled(tiny(name)).eval()
    seen = []
    net.map_label.register_forward_hook(lambda module, given, result: seen.append(given[0]))
    x, noise, classes, _ = inputs()
    net(x, noise, classes)
    torch.testing.assert_close(seen[0], scale * classes)


def test_an_unconditional_float32_network_answers_in_float32():
    net = SongUNet(**TINY | {"label_dim": 0, "augment_dim": 0}).eval()
    x, noise, *_ = (a.float() for a in inputs())
    y = net(x, noise)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, net.double()(x.double(), noise.double()).float(), rtol=1e-4, atol=1e-9)
    assert y.abs().max() > 1e-7  # the last layer starts near zero, not at it
    assert net(x.double(), noise, torch.zeros(3, 0)).shape == x.shape  # no classes: labels of width 0


@networks
def test_the_layout_of_the_memory_does_not_matter(name):
    """`channels_last`, which GPUs convolve fastest in: the same answers, and the same gradients of the input."""
    net, (x, *others) = filled(tiny(name)).eval(), inputs()
    answers, gradients = [], []
    for layout in (torch.contiguous_format, torch.channels_last):
        x_in = x.clone().requires_grad_(True)
        answer = net.to(memory_format=layout)(x_in, *others)
        answer.square().sum().backward()
        answers.append(answer.detach())
        gradients.append(x_in.grad)
    torch.testing.assert_close(answers[1], answers[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-9, atol=1e-9)


def test_bfloat16_autocast_stays_close():
    net = filled(SongUNet(**TINY)).float().eval()
    given = [a.float() for a in inputs()]
    y = net(*given)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = net(*given)
    assert 0 < (y - rounded).norm() / y.norm() < 0.1


def test_dropout_acts_in_training_only():
    plain = filled(SongUNet(**TINY, dropout=0.0)).eval()
    net = filled(SongUNet(**TINY, dropout=0.5))
    torch.testing.assert_close(net.eval()(*inputs()), plain(*inputs()), rtol=0, atol=0)
    assert not torch.allclose(net.train()(*inputs()), plain(*inputs()))


@networks
def test_label_dropout_acts_in_training_only(name):
    x, noise, classes, augment = inputs()
    plain = filled(tiny(name)).eval()
    net = filled(tiny(name, dropout=0, label_dropout=1))
    torch.testing.assert_close(net.eval()(x, noise, classes, augment), plain(x, noise, classes, augment))
    torch.testing.assert_close(net.train()(x, noise, classes, augment), plain(x, noise, None, augment))


def test_dropout_thins_out_the_input_of_the_second_convolution_and_keeps_its_mean():
    torch.manual_seed(0)
    block = filled(Block(8, 8, 6, SONG, dropout=0.25))
    seen = []
    block.conv1.register_forward_hook(lambda module, given, result: seen.append(given[0]))
    x = inputs(batch=2, channels=8, size=16)[0]
    block.eval()(x, torch.zeros(2, 6).double())
    block.train()(x, torch.zeros(2, 6).double())
    kept = seen[1] != 0
    torch.testing.assert_close(seen[1], kept * seen[0] / 0.75)
    assert 0.72 < kept.double().mean() < 0.78  # over four standard deviations


def test_label_dropout_drops_whole_labels_at_its_rate():
    torch.manual_seed(0)
    net = filled(
        SongUNet(**TINY | {"img_resolution": 2, "attn_resolutions": []}, dropout=0, label_dropout=0.25)
    ).train()
    seen = []
    net.map_label.register_forward_hook(lambda module, given, result: seen.append(given[0]))
    n = 1000
    classes = torch.ones(n, 10).double()  # not one-hot, to see that a row is kept or dropped as a whole
    net(torch.zeros(n, 1, 2, 2).double(), torch.zeros(n).double(), classes)
    kept = seen[0].sum(1) > 0
    torch.testing.assert_close(seen[0], math.sqrt(10) * classes * kept[:, None])
    assert 0.695 < kept.double().mean() < 0.805  # four standard deviations


@networks
def test_the_recorded_arguments_rebuild_the_network(name):
    net = filled(tiny(name, channel_mult=(1, 2))).eval()
    names = set(inspect.signature(type(net)).parameters)
    assert set(net.arguments) == names
    assert net.arguments["channel_mult"] == [1, 2]
    assert net.arguments["dropout"] == 0.10
    again = type(net)(**json.loads(json.dumps(net.arguments))).double().eval()
    assert again.arguments == net.arguments
    again.load_state_dict(net.state_dict())
    torch.testing.assert_close(again(*inputs()), net(*inputs()), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embedding_type": "learned"}, "embedding_type = 'learned': must be positional or fourier"),
        ({"encoder_type": "skip"}, "encoder_type = 'skip': must be standard or residual"),
        ({"decoder_type": "skip"}, "decoder_type = 'skip': must be standard"),
        ({"channel_mult": [1, 2, 2], "img_resolution": 6}, "img_resolution = 6: must be a positive multiple of 4"),
        ({"img_resolution": 0}, "img_resolution = 0: must be a positive multiple of 2"),
        ({"resample_filter": [1, 2, 1]}, r"resample_filter = \[1, 2, 1\]: must be of even length"),
    ],
)
def test_a_wrong_setting_is_named_with_its_remedy(change, message):
    with pytest.raises(ValueError, match=message):
        SongUNet(**TINY | change)


@pytest.mark.parametrize(("argument", "width"), [("class_labels", 3), ("augment_labels", 2)])
def test_labels_of_another_width_are_refused(argument, width):
    net = SongUNet(**TINY).double()
    x, noise, *_ = inputs()
    with pytest.raises(ValueError, match=rf"{argument}.shape = \[3, {width}\]: must be \[3, "):
        net(x, noise, **{argument: torch.zeros(3, width)})
    unconditional = SongUNet(**TINY | {"label_dim": 0, "augment_dim": 0}).double()
    with pytest.raises(ValueError, match=rf"{argument}.shape = \[3, {width}\]: must be \[3, 0\]"):
        unconditional(x, noise, **{argument: torch.zeros(3, width)})
