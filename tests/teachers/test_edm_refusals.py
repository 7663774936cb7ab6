"""What is no sound checkpoint of EDM's is refused with one line that names what is wrong."""

import re
from pickletools import genops

import numpy as np
import pytest
import torch
from edm_files import SMALL, Claimed, Storage, changed, dumps, filled, refused, saved, small, state_of, tree, weight

from simdistill.networks.unet import DhariwalUNet
from simdistill.teachers import edm, pickled_tensors, pickles
from simdistill.teachers.edm import read_edm


def cycle(content):
    modules = content["ema"].state["_modules"]["model"].state["_modules"]
    modules["enc"]._modules["again"] = modules["enc"]


def twice_in_place(content):
    modules = state_of(content, "model")["_modules"]
    modules["again"] = modules["map_layer0"]


def endless(content):
    inner = torch.nn.ModuleDict()
    for _ in range(150):
        outer = torch.nn.ModuleDict()
        outer._modules["x"] = inner
        inner = outer
    state_of(content, "model")["_modules"]["deep"] = inner


NUMBERS = torch.arange(64.0).reshape(16, 4)  # of the shape of map_layer0.weight


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("ema"), "has no network under the key 'ema'"),
        (lambda c: c.update(ema=None), "has no network under the key 'ema'"),
        (lambda c: c.update(ema=3), "has something else where a network module is expected"),
        (lambda c: c.update(ema=torch.zeros(3)), "has something else where a network module is expected"),
        (lambda c: c["ema"].meta.update(version=5), "version of its modules = 5: must be 6; save it again"),
        (lambda c: c["ema"].meta.update(version=[[6]]), "has a list for a setting"),
        (lambda c: c["ema"].meta.update(type="function"), "type of its modules = 'function': must be 'class'"),
        (
            lambda c: c["ema"].meta.update(class_name="Precond"),
            "preconditioning = 'Precond': must be one of EDMPrecond",
        ),
        (
            lambda c: c["ema"].state["_modules"]["model"].meta.update(class_name="DiT"),
            "network = 'DiT': must be one of SongUNet, DhariwalUNet",
        ),
        (lambda c: c["ema"].state["_modules"].pop("model"), "has something else where a network module is expected"),
        (lambda c: c["ema"].state.pop("_modules"), "has a module without _modules"),
        (lambda c: c["ema"].state.update(_init_args=(3,)), "has a module built with positional arguments"),
        (
            lambda c: c["ema"].state["_init_kwargs"].update(rho=7),
            "setting of EDMPrecond = 'rho': must be one that this",
        ),
        (lambda c: c["ema"].state["_init_kwargs"].update(sigma_data=0), "sigma_data = 0.0: must be positive"),
        (lambda c: c["ema"].state["_init_kwargs"].update(sigma_max=0.001), "sigma_min = 0.002: must be above 0 and"),
        (
            lambda c: state_of(c, "model")["_init_kwargs"].update(depth=7),
            "setting of SongUNet = 'depth': must be one that this package knows: img_resolution",
        ),
        (
            lambda c: state_of(c, "model")["_init_kwargs"].update(num_blocks="many"),
            "'many': input should be a valid int",
        ),
        (
            lambda c: state_of(c, "model")["_init_kwargs"].update(num_blocks=10**9),
            "num_blocks = 1000000000: must be at",
        ),
        (lambda c: state_of(c, "model")["_init_kwargs"].update(label_dim=10**12), "label_dim = 1000000000000: must be"),
        (lambda c: state_of(c, "model")["_init_kwargs"].update(label_dim=-1), "has impossible settings of SongUNet"),
        (lambda c: state_of(c, "model")["_init_kwargs"].update(channel_mult=[1] * 50), "channel_mult = '50 numbers'"),
        (lambda c: state_of(c, "model")["_init_kwargs"].update(channel_mult=[[1]]), "has a list for a setting"),
        (lambda c: state_of(c, "model")["_init_kwargs"].update(dropout=c["loss_fn"]), "has a Call for a setting"),
        (lambda c: state_of(c, "model")["_init_kwargs"].update(dropout=np.int8(1)), "has a NumPy number of an unknown"),
        (
            lambda c: state_of(c, "model")["_init_kwargs"].update(dropout=7),
            "dropout probability has to be between 0 and 1",
        ),
        (lambda c: state_of(c, "model")["_init_kwargs"].pop("in_channels"), "has impossible settings of SongUNet"),
        (
            lambda c: state_of(c, "model")["_init_kwargs"].update(label_dim=3),
            r"ema: 2 tensors are missing, such as map_label\.bias; must be those of the network of its settings",
        ),
        (
            lambda c: state_of(c, "model", "map_layer0")["_buffers"].update(extra=torch.zeros(1)),
            r"ema: 1 tensor is unknown, such as map_layer0\.extra; must be those of the network of its settings",
        ),
        (lambda c: c["ema"].state["_buffers"].update(u=torch.zeros(1)), "has the tensor 'u' besides its network"),
        (
            lambda c: state_of(c, "model")["_init_kwargs"].update(model_channels=8),
            r"shape of map_layer0.weight = \[16, 4\]: must be \[32, 8\], as its settings say",
        ),
        (cycle, "has endlessly nested modules"),
        (twice_in_place, "has endlessly nested modules"),
        (endless, "has endlessly nested modules"),
        (lambda c: weight(c, "text"), "has something else where the tensor map_layer0.weight is expected"),
        (
            lambda c: weight(c, NUMBERS.long()),
            "type of map_layer0.weight = 'torch.int64': must be a floating-point type",
        ),
        (lambda c: weight(c, Claimed(torch.zeros(63), 0, (16, 4), (4, 1))), "has only 63 numbers for the tensor map_l"),
        (lambda c: weight(c, Claimed(torch.zeros(64), 1, (16, 4), (4, 1))), "has only 64 numbers for the tensor map_l"),
        (lambda c: weight(c, Claimed(torch.zeros(64), -1, (16, 4), (4, 1))), "has a tensor map_layer0.weight without"),
        (lambda c: weight(c, Claimed(torch.zeros(64), 0, (16, 4), (4,))), "has a tensor map_layer0.weight without"),
        (lambda c: weight(c, Claimed(torch.zeros(64), 0, (16, 4), (4, 2**61))), "has only 64 numbers for the tensor"),
        (
            lambda c: weight(c, Claimed(torch.zeros(64), 0, (16, "4"), (4, 1))),
            "has a tensor map_layer0.weight without",
        ),
        (lambda c: weight(c, Claimed(7, 0, (16, 4), (4, 1))), "has a tensor map_layer0.weight without a storage"),
        (lambda c: weight(c, Claimed(Storage("x"), 0, (16, 4), (4, 1))), "has a storage of an unknown format or size"),
        (
            lambda c: weight(c, Claimed(Storage(saved(NUMBERS)), 0, (16, 4), (4, 1))),  # a zip archive
            "has a storage of an unknown format or size",
        ),
        (
            lambda c: weight(c, Claimed(torch.zeros(4000), 0, (16, 4), (4, 1))),
            "has a storage of an unknown format or s",
        ),
        (
            lambda c: weight(
                c, Claimed(Storage(saved(NUMBERS, _use_new_zipfile_serialization=False)), 0, (16, 4), (4, 1))
            ),
            "has no intact storage for the tensor map_layer0.weight",  # a tensor, not a storage
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_named(change, message):
    assert re.match(message, refused(changed(change)))


def test_another_table_of_noise_levels_is_refused():
    arguments = SMALL | {"out_channels": 6}
    net = filled(DhariwalUNet(**arguments))
    for u, message in [
        (torch.linspace(20_000, 0, 1001), r"u = '2e\+04 … 20': must be the noise levels of its settings"),
        (torch.zeros(3), r"shape of u = \[3\]: must be \[1001\]"),
    ]:
        assert re.match(message, refused(tree(net, arguments, "iDDPMPrecond", buffers={"u": u})))


def test_missing_large_and_empty_files_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"none\.pkl: no such file"):
        read_edm(tmp_path / "none.pkl")
    assert re.match("is not a complete pickle", refused(b""))
    monkeypatch.setattr(edm, "MAX_BYTES", 1000)
    assert re.match(r"has [\d,]+ bytes, an EDM checkpoint at most 1,000; name another file", refused(small()))


def test_a_pickle_of_too_many_steps_is_refused(monkeypatch):
    monkeypatch.setattr(pickles, "MAX_STEPS", 1000)
    assert re.match("has more than 1,000 steps: a checkpoint needs fewer", refused(small()))


@pytest.mark.slow
def test_the_largest_published_network_takes_less_than_a_tenth_of_the_steps():
    arguments = {"img_resolution": 64, "in_channels": 3, "out_channels": 3, "model_channels": 8}
    with torch.device("meta"):
        net = DhariwalUNet(**arguments)
    small = net.to_empty(device="cpu")
    assert sum(1 for _ in genops(dumps(tree(small, arguments)))) < pickles.MAX_STEPS / 10


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_a_header_of_a_storage_that_never_ends_is_refused():
    honest = saved(NUMBERS.storage(), _use_new_zipfile_serialization=False)
    magic = pickled_tensors._MAGIC
    assert honest.startswith(magic)
    flood = Storage(magic + b"\x80\x02" + b"0" * 4000)
    said = refused(changed(lambda c: weight(c, Claimed(flood, 0, (16, 4), (4, 1)))))
    assert "steps of a storage's header = 100: must be below 100" in said


@pytest.mark.parametrize("part", range(12))
def test_a_truncated_file_is_refused(part):
    whole = dumps(small())
    said = refused(whole[: len(whole) * part // 12 + part])
    assert re.match("is (not a complete pickle|damaged)", said)
    assert said.endswith("download it again")
