"""The U-Nets as a whole: what they answer to, dropout, precision, and what they refuse."""

import inspect
import json
import math

import pytest
import torch
from unets import TINY, filled, inputs, networks, tiny

from simdistill.networks.block import SONG, Block
from simdistill.networks.unet import SongUNet


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
