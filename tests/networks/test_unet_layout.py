"""The U-Nets have the published layout: parameters, names, shapes, attention, and answers."""

import pytest
import torch
from unets import ADM, NCSNPP, TINY, filled, inputs, networks, tiny

from simdistill.networks.block import Block
from simdistill.networks.unet import DhariwalUNet, SongUNet

CIFAR = {"img_resolution": 32, "in_channels": 3, "out_channels": 3, "augment_dim": 9, "channel_mult": [2, 2, 2]}
FFHQ = CIFAR | {"img_resolution": 64, "channel_mult": [1, 2, 2, 2]}

IMAGENET = {"img_resolution": 64, "in_channels": 3, "out_channels": 3, "label_dim": 1000}


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
