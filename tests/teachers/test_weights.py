"""Networks and checkpoints on disk: round trips to the bit, and refusal of everything else."""

import json
import os
import stat

import pytest
import torch
from safetensors.torch import save_file

from simdistill.method.denoisers import Preconditioned
from simdistill.method.preconditioning import EDMScaling, IDDPMScaling, VEScaling, VPScaling
from simdistill.networks.mlp import MLP
from simdistill.networks.unet import DhariwalUNet, SongUNet
from simdistill.support.files import write_atomically
from simdistill.support.tensors import read_metadata, read_tensors
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.teacher import Teacher
from simdistill.teachers.weights import is_partial, read_into, read_network, write_network
from simdistill.training.checkpoints import read_checkpoint, write_checkpoint


def perturbed(module):
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return module


NETWORKS = {
    "mlp": lambda: Preconditioned(MLP((1, 8, 8), 16, 2, 10), (1, 8, 8), 10, EDMScaling(0.75), 0.01, 50.0),
    "unet": lambda: Preconditioned(
        SongUNet(8, 1, 1, label_dim=10, model_channels=8, channel_mult=[1, 2], num_blocks=1, attn_resolutions=[4]),
        (1, 8, 8),
        10,
    ),
    "adm": lambda: Preconditioned(
        DhariwalUNet(4, 1, 2, label_dim=10, model_channels=64, channel_mult=[1], num_blocks=1, attn_resolutions=[4]),
        (1, 4, 4),
        10,
        IDDPMScaling(0.002, 0.01, 100),
    ),
    "vp": lambda: Preconditioned(MLP((5,), 16, 1, 10), (5,), 10, VPScaling(15.0, 0.2, 400), 0.01, 20.0),
    "ve": lambda: Preconditioned(MLP((5,), 16, 1, 10), (5,), 10, VEScaling()),
}


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_a_network_comes_back_as_it_was(build, tmp_path):
    network = perturbed(build()).eval()
    write_network(tmp_path / "n.safetensors", network, data="digits", figure=0.25)
    back, facts = read_network(tmp_path / "n.safetensors")
    assert facts == {"data": "digits", "figure": 0.25}
    assert (back.shape, back.classes) == (network.shape, network.classes)
    assert (back.scaling, back.sigma_min, back.sigma_max) == (network.scaling, network.sigma_min, network.sigma_max)
    assert not back.training
    assert not any(p.requires_grad for p in back.parameters())
    x, sigma, labels = torch.randn(3, *network.shape), torch.tensor([0.1, 1.0, 9.0]), torch.tensor([1, 2, 3])
    assert torch.equal(back(x, sigma, labels), network(x, sigma, labels))


def test_files_from_before_there_were_several_scalings_are_edms(tmp_path):
    network = perturbed(NETWORKS["mlp"]()).eval()
    write_network(tmp_path / "new.safetensors", network)
    tensors, metadata = read_tensors(tmp_path / "new.safetensors")
    header = json.loads(metadata["simdistill"])
    assert header["denoiser"].pop("scaling") == {"name": "EDMScaling", "sigma_data": 0.75}
    header["denoiser"]["sigma_data"] = 0.75
    save_file(tensors, tmp_path / "old.safetensors", {"simdistill": json.dumps(header)})
    back, _ = read_network(tmp_path / "old.safetensors")
    assert back.scaling == EDMScaling(0.75)
    x, sigma, labels = torch.randn(3, 1, 8, 8), torch.tensor([0.1, 1.0, 9.0]), torch.tensor([1, 2, 3])
    assert torch.equal(back(x, sigma, labels), network(x, sigma, labels))


def test_any_other_module_is_filled_but_not_built(tmp_path):
    module = perturbed(torch.nn.Linear(2, 2))
    write_network(tmp_path / "n.safetensors", module)
    back, _ = read_into(torch.nn.Linear(2, 2), tmp_path / "n.safetensors")
    assert torch.equal(back.weight, module.weight)
    with pytest.raises(ValueError, match="only weights"):
        read_network(tmp_path / "n.safetensors")
    with pytest.raises(ValueError, match=r"shape of weight = \[2, 2\]: must be \[2, 3\], as in the Linear given"):
        read_into(torch.nn.Linear(3, 2), tmp_path / "n.safetensors")


# ---- files of a part of a network


LAYERS = {"net.0.weight", "net.0.bias"}  # of three, the frozen one


def layers(seed):
    torch.manual_seed(seed)
    return torch.nn.ModuleDict({"net": torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))})


def test_a_part_of_a_network_fills_what_it_holds_and_leaves_the_rest(tmp_path):
    stored, other = layers(0), layers(1)
    write_network(tmp_path / "n.safetensors", stored, left_out=frozenset(LAYERS), figure=0.25)
    assert is_partial(tmp_path / "n.safetensors")
    tensors, _ = read_tensors(tmp_path / "n.safetensors")
    assert tensors.keys() == {"net.1.weight", "net.1.bias"}
    header = json.loads(read_metadata(tmp_path / "n.safetensors")["simdistill"])
    assert (header["partial"], set(header["left_out"])) == (True, LAYERS)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    back, facts = read_into(other, tmp_path / "n.safetensors")
    assert facts == {"figure": 0.25}
    for name, tensor in back.state_dict().items():
        assert torch.equal(tensor, before[name] if name in LAYERS else stored.state_dict()[name]), name
    assert not any(p.requires_grad for p in back.parameters())


def test_a_part_of_a_network_is_no_network(tmp_path):
    network = NETWORKS["mlp"]()
    write_network(tmp_path / "whole.safetensors", network)
    assert not is_partial(tmp_path / "whole.safetensors")
    name = next(iter(network.state_dict()))
    write_network(tmp_path / "part.safetensors", network, left_out={name})
    for read in (read_network, lambda path: load_teacher(str(path))):
        with pytest.raises(ValueError, match=r"part.safetensors: has only the trained part .* \(--teacher\)"):
            read(tmp_path / "part.safetensors")
    assert torch.equal(
        read_into(network, tmp_path / "part.safetensors")[0].state_dict()[name], network.state_dict()[name]
    )
    with pytest.raises(ValueError, match=r"left_out = \['more'\]: must be names of the network's own tensors"):
        write_network(tmp_path / "part.safetensors", network, left_out={"more"})
    with pytest.raises(ValueError, match="no such file"):
        is_partial(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors, header: tensors.pop("net.1.bias"), "1 tensor is missing, such as net.1.bias"),
        (lambda tensors, header: tensors.update(odd=torch.zeros(1)), "1 tensor is unknown, such as odd"),
        (lambda tensors, header: tensors.update({"net.0.bias": torch.zeros(3)}), "is unknown, such as net.0.bias"),
        (lambda tensors, header: tensors.update({"net.1.bias": torch.zeros(3)}), r"shape of net.1.bias = \[3\]"),
        (lambda tensors, header: header["left_out"].append("odd"), "1 tensor is unknown, such as odd"),
        (lambda tensors, header: header["left_out"].remove("net.0.bias"), "1 tensor is missing, such as net.0.bias"),
        (lambda tensors, header: header.pop("left_out"), "no header of simdistill"),
        (lambda tensors, header: header.update(left_out=3), "no header of simdistill"),
        (lambda tensors, header: header.pop("partial"), "2 tensors are missing, such as net.0.bias"),
    ],
)
def test_a_part_that_is_not_what_its_header_says_is_refused(tmp_path, change, message):
    path, network = tmp_path / "n.safetensors", layers(0)
    write_network(path, network, left_out=LAYERS)
    tensors, metadata = read_tensors(path)
    header = json.loads(metadata["simdistill"])
    change(tensors, header)
    save_file(tensors, path, {"simdistill": json.dumps(header)})
    with pytest.raises(ValueError, match=message):
        read_into(network, path)


# ---- unsound files


def with_header(path, header):
    save_file({"x": torch.zeros(1)}, path, {"simdistill": header} if header is not None else None)


def with_scaling(scaling):
    """A header that is sound but for its scaling."""
    network = {"network": "MLP", "arguments": {"shape": [2]}, "shape": [2], "classes": 0}
    return json.dumps({"denoiser": network | {"scaling": scaling, "sigma_min": 0.1, "sigma_max": 1.0}, "facts": {}})


def with_network(name, **arguments):
    """A header of a network that would take much time or memory to build."""
    own = {"img_resolution": 8, "in_channels": 1, "out_channels": 1} if name == "SongUNet" else {"shape": [1, 8, 8]}
    about = {"network": name, "arguments": own | arguments, "shape": [1, 8, 8], "classes": 0}
    ends = {"scaling": {"name": "EDMScaling", "sigma_data": 0.5}, "sigma_min": 0.1, "sigma_max": 1.0}
    return json.dumps({"denoiser": about | ends, "facts": {}})


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (None, "no header of simdistill"),
        ("not json", "no header of simdistill"),
        ("[1]", "no header of simdistill"),
        (json.dumps({"denoiser": {"network": "os.system", "arguments": {"command": "x"}}, "facts": {}}), "describe"),
        (json.dumps({"denoiser": {"network": "MLP", "arguments": {"bad": 1}}, "facts": {}}), "describe"),
        (json.dumps({"denoiser": {"network": "MLP"}, "facts": {}}), "describe"),
        (with_network("SongUNet", num_blocks=2**31), "num_blocks = 2147483648: must be at most 1,000"),
        (with_network("MLP", depth=10**6), "depth = 1000000: must be at most 1,000"),
        (with_network("MLP", width=2**40), "width = 1099511627776: must be at most 131,072"),
        (with_network("SongUNet", channel_mult=[1] * 10**5), "entries of channel_mult = 100000"),
        (with_network("SongUNet", channel_mult=[]), "describe"),
        (with_network("MLP", width=100_000), "tensors are missing"),  # 40 GB, of which none is made
        (with_scaling({"name": "os.system"}), "describe"),
        (with_scaling({"name": "VPScaling", "beta": 1}), "describe"),
        (with_scaling({"name": "VPScaling", "steps": 0}), "steps = 0: must be at least 2"),
        (with_scaling({"sigma_data": 0.5}), "describe"),
    ],
)
def test_foreign_headers_are_refused(tmp_path, header, message):
    path = tmp_path / "n.safetensors"
    with_header(path, header)
    with pytest.raises(ValueError, match=message):
        read_network(path)


def test_missing_and_damaged_files_are_refused(tmp_path):
    path = tmp_path / "n.safetensors"
    with pytest.raises(ValueError, match="no such file"):
        read_network(path)
    write_network(path, NETWORKS["mlp"]())
    whole = path.read_bytes()
    for damaged in (b"", whole[:7], whole[:500], whole[:-1], b"PK\x03\x04" + whole[4:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="not a valid safetensors file"):
            read_network(path)


def test_checkpoints_keep_every_bit(tmp_path):
    state = {"a": torch.randn(3), "b": torch.tensor(7), "c": torch.randn(2, 2, dtype=torch.float64).T}
    path = write_checkpoint(tmp_path, 12, state, {"seconds": 1.5})
    assert path == tmp_path / "000000012.safetensors"
    back, facts = read_checkpoint(path)
    assert facts == {"seconds": 1.5}
    assert {name: (t.dtype, t.tolist()) for name, t in back.items()} == {
        name: (t.dtype, t.tolist()) for name, t in state.items()
    }
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="not a checkpoint"):
        read_checkpoint(tmp_path / "other.safetensors")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "f"
    write_atomically(path, b"old")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["f"]


def test_tensors_of_a_plain_safetensors_file(tmp_path):
    save_file({"x": torch.arange(3)}, tmp_path / "t.safetensors")
    tensors, metadata = read_tensors(tmp_path / "t.safetensors")
    assert tensors["x"].tolist() == [0, 1, 2]
    assert metadata == {}


def test_teachers_by_name(tmp_path, monkeypatch):
    digits = load_teacher("digits")
    assert (digits.shape, digits.classes, digits.judged.data) == ((1, 8, 8), 10, "digits")
    exact = load_teacher("gaussians-25")
    assert (exact.shape, exact.classes, exact.trainable) == ((2,), 0, None)
    write_network(tmp_path / "mine.safetensors", NETWORKS["mlp"]())
    mine = load_teacher(str(tmp_path / "mine.safetensors"))
    assert (mine.sigma_min, mine.sigma_max, mine.judged.data) == (0.01, 50.0, None)

    (tmp_path / "mymodule.py").write_text(
        "from simdistill.data.densities import gaussians_25\n"
        "from simdistill.teachers.teacher import Teacher\n"
        "def good(): return Teacher(gaussians_25(), (2,))\n"
        "def bad(): return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert load_teacher("mymodule:good").name == "mymodule:good"
    for name, message in [
        ("mymodule:bad", "must return a simdistill.Teacher, not int"),
        ("mymodule:none", "no attribute 'none'"),
        ("nosuchmodule:f", "is the module on PYTHONPATH"),
        ("cifar", "must be digits, fashion-mnist, faces, gaussians-25"),
        (str(tmp_path / "no.safetensors"), "no such file"),
    ]:
        with pytest.raises(ValueError, match=message):
            load_teacher(name)


def test_a_teachers_facts_are_checked():
    for facts in ({"shape": ()}, {"shape": (2,), "classes": -1}, {"shape": (2,), "sigma_min": 90.0}):
        with pytest.raises(ValueError, match="must be"):
            Teacher(lambda x, s, c=None: x, **facts)
    with pytest.raises(ValueError, match=r"denoiser output = \[2, 3\]: must be of its input's shape, \[2, 2\]"):
        Teacher(lambda x, s, c=None: torch.zeros(len(x), 3), (2,)).check()


def test_a_header_of_a_million_tensors_is_not_read(tmp_path):
    path = tmp_path / "many.safetensors"
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"tensor{k}": empty for k in range(300_000)}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ValueError, match=r"bytes of its header = \d{8}: must be at most 16,777,216"):
        read_tensors(path)
