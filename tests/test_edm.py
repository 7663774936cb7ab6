"""EDM's checkpoints: read to the bit by their layout, refused with one line for anything else, and never executed."""

import copyreg
import io
import os
import pickle
import re
import subprocess
import sys
import warnings
import zipfile
from collections import OrderedDict
from pickletools import genops

import edm_files
import numpy as np
import pytest
import torch
from edm_files import OldFloat, dumps, tree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simdistill.denoisers import Preconditioned
from simdistill.networks.unet import DhariwalUNet, SongUNet
from simdistill.scalings import EDMScaling, IDDPMScaling, VEScaling, VPScaling
from simdistill.teachers import edm, pickled_tensors, pickles
from simdistill.teachers.edm import read_edm
from simdistill.teachers.pickles import Call, Name, read_pickle

SONG = {
    "img_resolution": 8,
    "in_channels": 3,
    "out_channels": 3,
    "label_dim": 10,
    "augment_dim": 9,
    "model_channels": 8,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
}
NCSNPP = SONG | {
    "embedding_type": "fourier",
    "encoder_type": "residual",
    "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1],
}
ADM = SONG | {"model_channels": 64, "channel_mult": [1], "attn_resolutions": [8], "augment_dim": 0}
SMALL = SONG | {"img_resolution": 2, "model_channels": 4, "channel_mult": [1], "label_dim": 0, "augment_dim": 0}


def filled(network):
    """`network` with noise in all its parameters, in eval mode."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


def small():
    """A fresh tree of the smallest network, whose tensors are always the same."""
    return tree(SMALLEST, SMALL)


SMALLEST = filled(SongUNet(**SMALL))


@pytest.fixture
def load(tmp_path):
    """Reads what it is given, bytes or a tree, as a file."""

    def read(content):
        path = tmp_path / "x.pkl"
        path.write_bytes(content if isinstance(content, bytes) else dumps(content))
        return read_edm(path)

    return read


@pytest.fixture
def refused(load, tmp_path):
    """Reads what must not be read and returns what the one line says behind the file's name."""

    def read(content):
        with pytest.raises(ValueError, match=": ") as caught:
            load(content)
        said = str(caught.value)
        assert said.startswith(f"{tmp_path / 'x.pkl'}: ")
        assert len(said.splitlines()) == 1
        return said.removeprefix(f"{tmp_path / 'x.pkl'}: ")

    return read


# ---- sound files


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
def test_a_checkpoint_gives_its_network_to_the_bit(kind, network, arguments, own, scaling, levels, load):
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
def test_todays_protocols_are_read(protocol, load):
    net = filled(SongUNet(**SMALL))
    denoiser = load(dumps(tree(net, SMALL), protocol))
    assert torch.equal(denoiser.model.map_layer0.weight, net.map_layer0.weight)


def test_numpys_numbers_are_numbers_by_both_its_names(load):
    content = tree(
        filled(SongUNet(**SMALL)), SMALL | {"dropout": np.float32(0.25)}, own={"sigma_data": np.float64(0.7)}
    )
    denoiser = load(content)
    assert denoiser.scaling == EDMScaling(0.7)
    assert denoiser.model.arguments["dropout"] == 0.25
    denoiser = load(tree(filled(SongUNet(**SMALL)), SMALL, own={"sigma_data": OldFloat(0.3)}))
    assert denoiser.scaling == EDMScaling(0.3)


def test_settings_that_a_file_leaves_out_have_edms_defaults(load):
    given = {name: value for name, value in SONG.items() if name not in ("label_dim", "augment_dim", "channel_mult")}
    denoiser = load(tree(filled(SongUNet(**given)), given))
    assert denoiser.model.arguments["channel_mult"] == [1, 2, 2, 2]
    assert denoiser.classes == 0


def test_half_precision_becomes_float32(load):
    net = filled(SongUNet(**SMALL))
    denoiser = load(tree(net.half(), SMALL))
    assert {tensor.dtype for tensor in denoiser.state_dict().values()} == {torch.float32}
    assert torch.equal(denoiser.model.map_layer0.weight, net.map_layer0.weight.float())


def test_tensors_that_are_views_or_share_a_storage_come_out_apart(load):
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


# ---- what is no sound file


def state_of(content, *path):
    """The attributes of a module in a tree."""
    found = content["ema"].state
    for name in path:
        child = found["_modules"][name]
        found = child.state if isinstance(child, edm_files.Persistent) else child.__dict__
    return found


def changed(change):
    """A sound tree after `change`."""
    content = small()
    change(content)
    return content


def weight(content, value):
    state_of(content, "model", "map_layer0")["_parameters"]["weight"] = value


class Claimed:
    """A tensor of any size, offset and stride over the storage of `numbers`."""

    def __init__(self, numbers, offset, size, stride):
        self.arguments = (numbers.storage() if isinstance(numbers, torch.Tensor) else numbers), offset, size, stride

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, (*self.arguments, False, OrderedDict())


class Storage:
    """A storage with any bytes for its content."""

    def __init__(self, content):
        self.content = content

    def __reduce__(self):
        return torch.storage._load_from_bytes, (self.content,)


def saved(thing, **how):
    buffer = io.BytesIO()
    torch.save(thing, buffer, **how)
    return buffer.getvalue()


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
        (lambda c: c.pop("ema"), "holds no network under the key 'ema'"),
        (lambda c: c.update(ema=None), "holds no network under the key 'ema'"),
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
        (lambda c: c["ema"].state.update(_init_args=(3,)), "has a module built with arguments without names"),
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
            "lacks the tensor 'map_label.",
        ),
        (
            lambda c: state_of(c, "model", "map_layer0")["_buffers"].update(extra=torch.zeros(1)),
            "has beyond its network the tensor 'map_layer0.extra'",
        ),
        (lambda c: c["ema"].state["_buffers"].update(u=torch.zeros(1)), "has beyond its network the tensor 'u'"),
        (
            lambda c: state_of(c, "model")["_init_kwargs"].update(model_channels=8),
            r"shape of map_layer0.weight = \[16, 4\]: must be \[32, 8\], as its settings say",
        ),
        (cycle, "has modules inside each other without end"),
        (twice_in_place, "has modules inside each other without end"),
        (endless, "has modules inside each other without end"),
        (lambda c: weight(c, "text"), "has something else where the tensor map_layer0.weight is expected"),
        (
            lambda c: weight(c, NUMBERS.long()),
            "type of map_layer0.weight = 'torch.int64': must be a floating-point type",
        ),
        (lambda c: weight(c, Claimed(torch.zeros(63), 0, (16, 4), (4, 1))), "has only 63 numbers for the tensor map_l"),
        (lambda c: weight(c, Claimed(torch.zeros(64), 1, (16, 4), (4, 1))), "has only 64 numbers for the tensor map_l"),
        (lambda c: weight(c, Claimed(torch.zeros(64), -1, (16, 4), (4, 1))), "has a tensor map_layer0.weight of no sh"),
        (lambda c: weight(c, Claimed(torch.zeros(64), 0, (16, 4), (4,))), "has a tensor map_layer0.weight of no shape"),
        (lambda c: weight(c, Claimed(torch.zeros(64), 0, (16, 4), (4, 2**61))), "has only 64 numbers for the tensor"),
        (
            lambda c: weight(c, Claimed(torch.zeros(64), 0, (16, "4"), (4, 1))),
            "has a tensor map_layer0.weight of no sh",
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
            "has no sound storage for the tensor map_layer0.weight",  # a tensor, not a storage
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_named(change, message, refused):
    assert re.match(message, refused(changed(change)))


def test_another_table_of_noise_levels_is_refused(refused):
    arguments = SMALL | {"out_channels": 6}
    net = filled(DhariwalUNet(**arguments))
    for u, message in [
        (torch.linspace(20_000, 0, 1001), r"u = '2e\+04 … 20': must be the noise levels of its settings"),
        (torch.zeros(3), r"shape of u = \[3\]: must be \[1001\]"),
    ]:
        assert re.match(message, refused(tree(net, arguments, "iDDPMPrecond", buffers={"u": u})))


def test_missing_large_and_empty_files_are_refused(tmp_path, monkeypatch, refused):
    with pytest.raises(ValueError, match=r"none\.pkl: no such file"):
        read_edm(tmp_path / "none.pkl")
    assert re.match("is not a whole pickle", refused(b""))
    monkeypatch.setattr(edm, "MAX_BYTES", 1000)
    assert re.match(r"has [\d,]+ bytes, an EDM checkpoint at most 1,000; name another file", refused(small()))


def test_a_pickle_of_too_many_steps_is_refused(monkeypatch, refused):
    monkeypatch.setattr(pickles, "MAX_STEPS", 1000)
    assert re.match("has more than 1,000 steps: no checkpoint needs so many", refused(small()))


@pytest.mark.slow
def test_the_largest_published_network_takes_less_than_a_tenth_of_the_steps():
    arguments = {"img_resolution": 64, "in_channels": 3, "out_channels": 3, "model_channels": 8}
    with torch.device("meta"):
        net = DhariwalUNet(**arguments)
    small = net.to_empty(device="cpu")
    assert sum(1 for _ in genops(dumps(tree(small, arguments)))) < pickles.MAX_STEPS / 10


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_a_header_of_a_storage_that_never_ends_is_refused(refused):
    honest = saved(NUMBERS.storage(), _use_new_zipfile_serialization=False)
    magic = pickled_tensors._MAGIC
    assert honest.startswith(magic)
    flood = Storage(magic + b"\x80\x02" + b"0" * 4000)
    said = refused(changed(lambda c: weight(c, Claimed(flood, 0, (16, 4), (4, 1)))))
    assert "steps of a storage's header = 100: must be below 100" in said


@pytest.mark.parametrize("part", range(12))
def test_a_truncated_file_is_refused(part, refused):
    whole = dumps(small())
    said = refused(whole[: len(whole) * part // 12 + part])
    assert re.match("is (not a whole pickle|damaged)", said)
    assert said.endswith("download it again")


# ---- hostile files


class Evil:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.fixture
def marker(tmp_path, monkeypatch):
    """A file that payloads create, in the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "marker"


WRITE = "open('marker', 'w').close()"
SYSTEM = b"c" + os.system.__module__.encode() + b"\nsystem\n"
PAYLOADS = {
    "os.system": lambda: pickle.dumps(Evil(os.system, "touch marker"), 4),
    "subprocess": lambda: pickle.dumps(Evil(subprocess.call, ["touch", "marker"]), 4),
    "eval": lambda: pickle.dumps(Evil(eval, WRITE), 4),
    "exec": lambda: pickle.dumps(Evil(exec, WRITE), 2),
    "open": lambda: pickle.dumps(Evil(open, "marker", "w"), 4),
    "text protocol": lambda: SYSTEM + b"(S'touch marker'\ntR.",
    "inst": lambda: b"(S'touch marker'\ni" + SYSTEM[1:] + b".",
    "obj": lambda: b"(" + SYSTEM + b"S'touch marker'\no.",
    "extension": lambda: b"\x80\x02\x82\xf0X\x0c\x00\x00\x00touch marker\x85R.",
    "dotted": lambda: b"\x80\x04\x8c\x06shutil\x8c\x09os.system\x93\x8c\x0ctouch marker\x85R.",
    "memo": lambda: b"\x80\x04\x8c\x02os\x94\x8c\x06system\x9400h\x00h\x01\x93\x8c\x0ctouch marker\x85R.",
}
SILENT = {  # which Python refuses, or which do nothing by themselves, but no checkpoint needs them
    "new object": b"\x80\x04csubprocess\nPopen\n](\x8c\x05touch\x8c\x06markere\x85\x81.",
    "new object with names": b"\x80\x04csubprocess\nPopen\n)}\x8c\x04args](\x8c\x05touch\x8c\x06markeres\x92.",
    "persistent id": b"\x80\x04\x8c\x01aQ.",
    "text persistent id": b"Pmarker\n.",
    "state of a name": b"\x80\x04ccollections\nOrderedDict\n}\x8c\x05items\x8c\x01xsb.",
    "inside of an allowed name": b"\x80\x04\x8c\x0btorch._utils\x8c\x1e_rebuild_tensor_v2.__globals__\x93.",
    "another of an allowed module": b"\x80\x04\x8c\x0btorch._utils\x8c\x0c_import_dotted_name\x93.",
    "call of a value": b"\x80\x04K\x01K\x02\x85R.",
    "call of a call": b"\x80\x04cnumpy\ndtype\n)R)R.",
    "call without a tuple": b"\x80\x04cnumpy\ndtype\n]R.",
    "state of a value": b"\x80\x04K\x01}b.",
    "key without a hash": b"\x80\x04}]K\x01s.",
    "key that is a deep tuple": b"\x80\x04}" + b")" + b"\x85" * 100_000 + b"K\x01s.",
    "set of lists": b"\x80\x04\x8f(]\x90.",
    "pairs with one missing": b"\x80\x04}(\x8c\x01a\x8c\x01b\x8c\x01cu.",
    "large memo": b"\x80\x04Nr\xff\xff\xff\xffj\x00\x00\x00\xff.",
    "memo of nothing": b"\x80\x04\x94.",
    "unknown memo": b"\x80\x04h\x07.",
    "endless bytes": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "endless text": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff.",
    "endless frame": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fK\x01.",
    "large number": b"\x80\x04\x8b\xff\xff\xff\x7f.",
    "open mark": b"\x80\x04(K\x01.",
    "two values": b"\x80\x04K\x01K\x02.",
    "nothing": b"\x80\x04.",
    "end of a list that was not begun": b"\x80\x04K\x01e.",
    "not Unicode": b"\x80\x04\x8c\x02\xff\xff.",
    "buffer": b"\x80\x05\x97.",
    "bytearray": b"\x80\x05\x96\x01\x00\x00\x00\x00\x00\x00\x00x.",
    "name in two lines": b"cos\n\n.",
}


@pytest.fixture
def extension():
    """A registered extension code, as `inst` and `obj` one of the ways to a name besides GLOBAL."""
    copyreg.add_extension(os.system.__module__, "system", 240)
    yield
    copyreg.remove_extension(os.system.__module__, "system", 240)


@pytest.mark.usefixtures("extension")
@pytest.mark.parametrize("name", PAYLOADS)
def test_no_payload_runs(name, marker, refused):
    payload = PAYLOADS[name]()
    process = pickle.loads(payload)  # it would
    if isinstance(process, subprocess.Popen):
        process.wait()
    elif isinstance(process, io.IOBase):
        process.close()
    marker.unlink()
    assert re.match(r"(asks for '|has the step )", refused(payload))
    assert not marker.exists()


@pytest.mark.parametrize("name", SILENT)
def test_no_step_is_taken_that_no_checkpoint_needs(name, refused):
    assert re.search("do not trust it|download it again|name one of its .pkl files", refused(SILENT[name]))


PLACES = {
    "beside ema": lambda c, evil: c.update(augment_pipe=evil),
    "ema": lambda c, evil: c.update(ema=evil),
    "a class": lambda c, evil: c["ema"].meta.update(class_name=evil),
    "a setting": lambda c, evil: state_of(c, "model")["_init_kwargs"].update(dropout=evil),
    "an attribute": lambda c, evil: state_of(c, "model", "enc").update(hook=evil),
    "a tensor": lambda c, evil: weight(c, evil),
    "a storage": lambda c, evil: weight(c, Claimed(Storage(evil), 0, (16, 4), (4, 1))),
}


@pytest.mark.parametrize("name", PLACES)
def test_no_payload_runs_wherever_it_stands(name, marker, refused):
    content = changed(lambda c: PLACES[name](c, Evil(os.system, "touch marker")))
    assert re.match(
        f"asks for '{os.system.__module__}.system', which no checkpoint needs: do not trust it", refused(content)
    )
    assert not marker.exists()


def archive():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", PAYLOADS["os.system"]())
        file.writestr("archive/version", "3")
    return buffer.getvalue()


HEADER = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
NESTED = {
    "a bare pickle": lambda: PAYLOADS["os.system"](),
    "as torch.save's object": lambda: saved(Evil(os.system, "touch marker"), _use_new_zipfile_serialization=False),
    "after the magic number": lambda: pickled_tensors._MAGIC + PAYLOADS["os.system"](),
    "in a zip archive": archive,
    "as torch.save's object in a zip archive": lambda: saved(Evil(os.system, "touch marker")),
    "for its keys": lambda: b"".join(
        pickle.dumps(part, 2)
        for part in (torch.serialization.MAGIC_NUMBER, 1001, HEADER, 0, [Evil(os.system, "touch marker")])
    ),
    "for its system": lambda: b"".join(
        pickle.dumps(part, 2)
        for part in (torch.serialization.MAGIC_NUMBER, 1001, Evil(os.system, "touch marker"), 0, [])
    ),
}


@pytest.mark.parametrize("name", NESTED)
def test_no_payload_runs_from_the_bytes_of_a_storage(name, marker, refused):
    content = changed(lambda c: weight(c, Claimed(Storage(NESTED[name]()), 0, (16, 4), (4, 1))))
    if name != "after the magic number":
        try:  # what torch's own reading does with them
            torch.load(io.BytesIO(NESTED[name]()), weights_only=False)
        except Exception:  # after the payload
            assert marker.exists()
        marker.unlink(missing_ok=True)
    assert re.match(r"has (no sound storage|a storage of an unknown format or size) for", refused(content))
    assert not marker.exists()


def test_source_code_in_a_checkpoint_is_not_run(marker, load):
    content = small()
    for found in (content["ema"], content["ema"].state["_modules"]["model"], content["loss_fn"]):
        found.meta["module_src"] = WRITE
    assert load(content).shape == (3, 2, 2)
    assert not marker.exists()


GENUINE = dumps(small())
INSERTS = [
    b"0",
    b"Q",
    b"R",
    b"b",
    b"\x81",
    b"\x92",
    b"\x82\xf0",
    b"\x93",
    b"\x94",
    SYSTEM,
    b"\x8c\x02os\x8c\x06system\x93",
    b"(",
    b"t",
    b"e",
    b"u",
]
STRUCTURE = [position for _, _, position in genops(GENUINE)]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_mutated_checkpoints_run_nothing_and_raise_only_value_errors(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.modules[os.system.__module__], "system", lambda *_: pytest.fail("a call was made"))
    content = bytearray(GENUINE)
    for _ in range(data.draw(st.integers(1, 4))):
        # at a step, or behind it in its argument
        at = min(data.draw(st.sampled_from(STRUCTURE)) + data.draw(st.integers(0, 6)), len(content) - 1)
        how = data.draw(st.sampled_from(["flip", "insert", "delete", "copy"]))
        if how == "flip":
            content[at] = data.draw(st.integers(0, 255))
        elif how == "insert":
            content[at:at] = data.draw(st.sampled_from(INSERTS))
        elif how == "delete":
            del content[at : at + data.draw(st.integers(1, 40))]
        else:
            source = data.draw(st.sampled_from(STRUCTURE))
            content[at:at] = content[source : source + data.draw(st.integers(1, 200))]
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    try:
        said = f"{path}: {read_edm(path).shape}"  # a change that does not matter
    except ValueError as error:
        said = str(error)
    assert said.startswith(f"{path}: ")
    assert len(said.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["x.pkl"]


def slots(found):
    """Every place of a value in a tree, as a dict and a key."""
    if isinstance(found, edm_files.Persistent):
        yield from ((found.meta, key) for key in found.meta)
        yield from slots(found.state)
    elif isinstance(found, torch.nn.ModuleDict):
        yield from slots(found.__dict__)
    elif isinstance(found, dict):
        for key, value in found.items():
            yield found, key
            yield from slots(value)


ODD = [
    None,
    True,
    0,
    -1,
    3,
    2**16,
    2**40,
    -0.0,
    1e300,
    float("inf"),
    float("nan"),
    "",
    "x",
    "8",
    b"x",
    (),
    [],
    {},
    set(),
]
ODD += [
    [2**40],
    [None],
    [[]],
    {"a": 1},
    {1: 2},
    {"": None},
    np.float64("nan"),
    np.int32(7),
    torch.zeros(2),
    torch.zeros(()),
]
ODD += [Evil(os.system, "touch marker"), OldFloat(2.0), Storage(b""), Claimed(7, 0, (), ()), torch.nn.ModuleDict()]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_odd_values_anywhere_raise_only_value_errors(tmp_path, data):
    content = small()
    for _ in range(data.draw(st.integers(1, 2))):
        places = list(slots(content))
        place, key = places[data.draw(st.integers(0, len(places) - 1))]
        if data.draw(st.booleans()):
            place[key] = ODD[data.draw(st.integers(0, len(ODD) - 1))]
        else:
            place[data.draw(st.sampled_from(["", "x", 3, None, "ema", "model"]))] = place[key]
    path = tmp_path / "x.pkl"
    path.write_bytes(dumps(content))
    try:
        said = f"{path}: {read_edm(path).shape}"
    except ValueError as error:
        said = str(error)
    assert said.startswith(f"{path}: ")
    assert len(said.splitlines()) == 1


with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "TypedStorage is deprecated")
    STORAGE = saved(torch.arange(12.0).storage(), _use_new_zipfile_serialization=False)


def described(content):
    """The steps that would build a 3×4 tensor over a storage with that content."""
    storage = Call("torch.storage._load_from_bytes", (content,))
    return Call("torch._utils._rebuild_tensor_v2", (storage, 0, (3, 4), (4, 1), False, {}))


def test_a_storage_is_read_by_its_bytes():
    assert torch.equal(pickled_tensors.read_tensor("w", described(STORAGE), [3, 4]), torch.arange(12.0).reshape(3, 4))


@pytest.mark.parametrize("numbers", [11, 13, 2**31 - 1, 2**62, -1])
def test_a_storage_that_claims_another_size_is_refused(numbers):
    position = STORAGE.index(b"K\x0cN")  # twelve numbers, in the description of the storage
    claim = STORAGE[:position] + pickle.dumps(numbers, 2)[2:-1] + STORAGE[position + 2 :]
    with pytest.raises(ValueError, match="has no sound storage for the tensor w"):
        pickled_tensors.read_tensor("w", described(claim), [3, 4])


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(15, len(STORAGE) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 9),
)
def test_mutated_storages_give_a_tensor_or_a_value_error(changes, cut):
    content = bytearray(STORAGE)
    for at, byte in changes:
        content[at] = byte
    try:
        tensor = pickled_tensors.read_tensor("w", described(bytes(content[: len(content) - cut])), [3, 4])
    except ValueError:
        return
    assert (tensor.shape, tensor.dtype) == ((3, 4), torch.float32)


# ---- the reader by itself

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**2000), 2**2000) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner) | st.sets(st.text()),
    max_leaves=30,
)


@settings(max_examples=60, deadline=None)
@given(VALUES, st.sampled_from([4, 5]))
def test_plain_values_come_out_as_they_went_in(value, protocol):
    assert read_pickle(pickle.dumps(value, protocol), []) == value


def test_a_call_is_written_down_and_not_made():
    name = f"{os.system.__module__}.system"
    found = read_pickle(PAYLOADS["os.system"](), [name])
    assert isinstance(found, Call)
    assert (found.function, found.arguments, found.state) == (name, ("touch marker",), None)
    assert read_pickle(pickle.dumps(os.system), [name]) == Name(name)
