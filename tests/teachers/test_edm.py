"""EDM's checkpoints are read to the bit by their layout."""

import numpy as np
import pytest
import torch
from edm_files import SMALL, SONG, OldFloat, dumps, filled, load, tree

from simdistill.method.denoisers import Preconditioned
from simdistill.method.preconditioning import EDMScaling, IDDPMScaling, VEScaling, VPScaling
from simdistill.networks.unet import DhariwalUNet, SongUNet

NCSNPP = SONG | {
    "embedding_type": "fourier",
    "encoder_type": "residual",
    "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1],
}
ADM = SONG | {"model_channels": 64, "channel_mult": [1], "attn_resolutions": [8], "augment_dim": 0}


@pytest.mark.parametrize(
    ("kind", "network", "arguments", "own", "scaling", "levels"),
    [
        ("EDMPrecond", SongUNet, SONG, {}, EDMScaling(0.5), (0.002, 80)),
        ("EDMPrecond", SongUNet, NCSNPP, {"sigma_data": 0.7, "sigma_max": 20}, EDMScaling(0.7), (0.002, 20)),
        ("EDMPrecond", DhariwalUNet, ADM, {"sigma_min": 0.01}, EDMScaling(0.5), (0.01, 80)),
        ("VPPrecond", SongUNet, SONG, {"beta_d": 15.0, "M": 500}, VPScaling(15.0, 0.1, 500), (0.002, 44.69)),
        ("VPPrecond", SongUNet, SONG, {}, VPScaling(), (0.002, 80)),
        ("VEPrecond", SongUNet, NCSNPP, {}, VEScaling(), (0.02, 80)),
        ("iDDPMPrecond", DhariwalUNet, ADM | {"out_channels": 6}, {}, IDDPMScaling(), (0.0064254, 80)),
    ],
    ids=["edm-ddpmpp", "edm-ncsnpp", "edm-adm", "vp-other", "vp", "ve", "iddpm"],
)
def test_a_checkpoint_gives_its_network_to_the_bit(kind, network, arguments, own, scaling, levels):
    net = filled(network(**arguments))
    buffers = {"u": torch.cat([scaling.levels, torch.zeros(1)]).float()} if kind == "iDDPMPrecond" else {}
    denoiser = load(tree(net, arguments, kind, own, buffers))
    assert (denoiser.shape, denoiser.classes, denoiser.scaling) == ((3, 8, 8), 10, scaling)
    assert (denoiser.sigma_min, denoiser.sigma_max) == pytest.approx(levels, rel=1e-4)
    assert denoiser.model.arguments == net.arguments
    ours, theirs = denoiser.state_dict(), net.state_dict()
    assert ours.keys() == {f"model.{name}" for name in theirs}
    assert all(torch.equal(ours[f"model.{name}"], tensor) for name, tensor in theirs.items())
    assert not denoiser.training
    assert not any(p.requires_grad for p in denoiser.parameters())
    x, sigma, labels = torch.randn(3, 3, 8, 8), torch.tensor([0.1, 1.0, 9.0]), torch.tensor([1, 2, 3])
    expected = Preconditioned(net, (3, 8, 8), 10, scaling)
    assert torch.equal(denoiser(x, sigma, labels), expected(x, sigma, labels))


@pytest.mark.parametrize("protocol", [4, 5])
def test_todays_protocols_are_read(protocol):
    net = filled(SongUNet(**SMALL))
    denoiser = load(dumps(tree(net, SMALL), protocol))
    assert torch.equal(denoiser.model.map_layer0.weight, net.map_layer0.weight)


def test_numpys_numbers_are_numbers_by_both_its_names():
    content = tree(
        filled(SongUNet(**SMALL)), SMALL | {"dropout": np.float32(0.25)}, own={"sigma_data": np.float64(0.7)}
    )
    denoiser = load(content)
    assert denoiser.scaling == EDMScaling(0.7)
    assert denoiser.model.arguments["dropout"] == 0.25
    denoiser = load(tree(filled(SongUNet(**SMALL)), SMALL, own={"sigma_data": OldFloat(0.3)}))
    assert denoiser.scaling == EDMScaling(0.3)


def test_settings_that_a_file_leaves_out_have_edms_defaults():
    given = {name: value for name, value in SONG.items() if name not in ("label_dim", "augment_dim", "channel_mult")}
    denoiser = load(tree(filled(SongUNet(**given)), given))
    assert denoiser.model.arguments["channel_mult"] == [1, 2, 2, 2]
    assert denoiser.classes == 0


def test_half_precision_becomes_float32():
    net = filled(SongUNet(**SMALL))
    denoiser = load(tree(net.half(), SMALL))
    assert {tensor.dtype for tensor in denoiser.state_dict().values()} == {torch.float32}
    assert torch.equal(denoiser.model.map_layer0.weight, net.map_layer0.weight.float())


def test_tensors_that_are_views_or_share_a_storage_come_out_apart():
    net = filled(SongUNet(**SMALL))
    twice = torch.randn(2, 16, 16)
    content = tree(net, SMALL)
    inner = content["ema"].state["_modules"]["model"].state["_modules"]
    inner["map_layer1"].state["_parameters"]["weight"] = torch.nn.Parameter(twice[1].T)
    inner["enc"]._modules["2x2_block0"].state["_modules"]["affine"].state["_parameters"]["weight"] = twice[1, :4]
    model = load(content).model
    assert torch.equal(model.map_layer1.weight, twice[1].T)
    assert torch.equal(model.enc["2x2_block0"].affine.weight, twice[1, :4])
    assert model.map_layer1.weight.is_contiguous()
    assert model.map_layer1.weight.untyped_storage().nbytes() == 16 * 16 * 4
    assert model.map_layer1.weight.data_ptr() != model.enc["2x2_block0"].affine.weight.data_ptr()
