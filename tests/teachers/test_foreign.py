"""Files of other programs, given as teachers: one line that says what they are, and the remedy."""

import pickle
import re
import shlex
import sys

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import dit, unet
from torch import nn
from torch.nn.functional import one_hot

from simdistill.data.images import array_set
from simdistill.method.denoisers import Preconditioned
from simdistill.method.generator import Generator
from simdistill.networks.mlp import MLP
from simdistill.teachers.families import FAMILIES, DiffusersNetwork
from simdistill.teachers.foreign import PIPELINES
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.pickles import read_pickle
from simdistill.teachers.prediction_types import FlowPrediction
from simdistill.teachers.single_file import NETWORK
from simdistill.teachers.teacher import Teacher

diffusers = pytest.importorskip("diffusers")

ONE = torch.ones(2)


@pytest.mark.parametrize(
    ("name", "tensors", "said"),
    [
        ("net.pt", {"fc.weight": ONE}, ["state dict", "fc.weight", "--teacher module:function"]),
        ("net.pth", {"module.fc.weight": ONE}, ["without the prefix 'module.'", "DistributedDataParallel"]),
        ("nested.ckpt", {"state_dict": {"fc.weight": ONE}, "epoch": 3}, ["state dict", "fc.weight"]),
        (
            "sd.ckpt",
            {"state_dict": {"model.diffusion_model.input_blocks.0.0.weight": ONE}},
            ["StableDiffusionPipeline"],
        ),
        ("sd.safetensors", {"model.diffusion_model.input_blocks.0.0.weight": ONE}, ["from_single_file", "sd.safetens"]),
        (
            "xl.safetensors",
            {
                f"model.diffusion_model.{name}": ONE.clone()
                for name in ("input_blocks.0.0.weight", "label_emb.0.0.weight")
            },
            ["StableDiffusionXLPipeline"],
        ),
        ("sd3.safetensors", {"model.diffusion_model.joint_blocks.0.x": ONE}, ["StableDiffusion3Pipeline"]),
        ("flux.safetensors", {"double_blocks.0.img_attn.qkv.weight": ONE}, ["FluxPipeline"]),
        ("style.safetensors", {"unet.lora_A.weight": ONE}, ["is a LoRA", "fuse it"]),
        (
            "diffusion_pytorch_model.safetensors",
            {"conv_in.weight": ONE},
            ["weights of a diffusers folder", "config.json"],
        ),
        ("diffusion_pytorch_model.bin", {"conv_in.weight": ONE}, ["weights of a diffusers folder"]),
    ],
)
def test_weights_of_other_programs(tmp_path, name, tensors, said):
    path = tmp_path / name
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    with pytest.raises(ValueError, match="teacher = ") as refused:
        load_teacher(str(path))
    message = str(refused.value)
    assert "\n" not in message
    assert [part for part in said if part not in message] == []


def test_the_command_that_converts_can_be_pasted(tmp_path):
    """Where a pipeline's configuration lies beside the file, nothing is downloaded; the path is quoted."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    save_file({"model.diffusion_model.joint_blocks.0.x": ONE}, folder / "v1 5.safetensors")
    with pytest.raises(ValueError, match="local_files_only=True") as refused:
        load_teacher(str(folder / "v1 5.safetensors"))
    assert f"--teacher '{folder}/v1 5'" in str(refused.value)


@pytest.mark.parametrize("name", ["sd.safetensors", "sd.ckpt"])
@pytest.mark.parametrize(("start", "pipeline"), PIPELINES.items())
def test_the_command_that_converts_is_pythons_and_diffusers(tmp_path, monkeypatch, name, start, pipeline):
    """It parses, and calls what diffusers has, with the file and the folder that --teacher then takes."""
    path, called = tmp_path / name, []
    tensors = {NETWORK + start: ONE}
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save({"state_dict": tensors}, path)
    with pytest.raises(ValueError, match="convert it once") as refused:
        load_teacher(str(path))
    (quoted, folder) = re.search(r"python -c ('.*'), then --teacher (.*)$", str(refused.value)).groups()
    (code,) = shlex.split(quoted)
    kind = getattr(diffusers, pipeline)

    class Loaded:
        save_pretrained = called.append

    assert callable(kind.save_pretrained)
    monkeypatch.setattr(kind, "from_single_file", lambda *given, **more: called.append((*given, more)) or Loaded)
    exec(code, {})
    assert called == [(str(path), {}), folder]
    assert folder == str(path.with_suffix(""))


def test_a_network_of_one_file_that_is_not_known(tmp_path):
    """No class is named that does not read it: DiffusionPipeline has no from_single_file."""
    save_file({"model.diffusion_model.layers.0.weight": ONE}, tmp_path / "new.safetensors")
    with pytest.raises(ValueError, match=r"by the class of its pipeline: PIPELINE\.from_single_file\('.*new\.safe"):
        load_teacher(str(tmp_path / "new.safetensors"))


def test_a_corrupt_file_is_no_run_to_be_repeated(tmp_path):
    path = tmp_path / "teacher.safetensors"
    path.write_bytes(b"junk" * 10)
    with pytest.raises(ValueError, match="not a valid safetensors file"):
        load_teacher(str(path))


class Whole(nn.Module):
    pass


def test_a_pickled_module_is_not_run(tmp_path):
    torch.save(Whole(), tmp_path / "whole.pt")
    with pytest.raises(ValueError, match=r"nothing in it was executed.*--teacher module:function"):
        load_teacher(str(tmp_path / "whole.pt"))


CONTENT = {"name": "ema", "sizes": [1, 2.5, None, True], "bytes": b"\x00\xff", "none": b"", "set": {1, 2}, "t": (1,)}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_every_current_protocol_are_read(protocol):
    assert read_pickle(pickle.dumps(CONTENT, protocol), ()) == CONTENT


def test_the_oldest_says_how_to_write_it_anew():
    with pytest.raises(ValueError, match="protocol 2 or later"):
        read_pickle(pickle.dumps({"x": {1}, "y": ["a", 2.5]}, 0), ())


def test_older_protocols_open_no_door():
    """What protocols 2 and 3 name for their values builds values only, and of bounded size."""

    class Payload:
        def __reduce__(self):
            return (sys.exit, (1,))

    for protocol in (2, 3, 4, 5):
        with pytest.raises(ValueError, match="none of it was run"):
            read_pickle(pickle.dumps({"a": Payload()}, protocol), ())
    with pytest.raises(ValueError, match="do not trust it"):
        read_pickle(b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.", ())


def test_archives_and_edm2_are_named(tmp_path):
    torch.save({"ema": ONE}, tmp_path / "zip.pkl")
    with pytest.raises(ValueError, match=r"an archive of torch\.save"):
        load_teacher(str(tmp_path / "zip.pkl"))
    source = "def mp_silu(x): return torch.nn.functional.silu(x) / 0.596"
    (tmp_path / "edm2.pkl").write_bytes(pickle.dumps({"module_src": source, "x": Whole}))
    with pytest.raises(ValueError, match="a checkpoint of EDM2"):
        load_teacher(str(tmp_path / "edm2.pkl"))


def test_a_network_without_weights():
    with torch.device("meta"):
        net = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="weight on the meta device"):
        Teacher(net, (2,)).check()


NO_LABELS = [None, torch.tensor([12]), torch.tensor([-1]), torch.tensor([1.0]), torch.tensor([True])]


@pytest.mark.parametrize("labels", NO_LABELS, ids=str)
@pytest.mark.parametrize("kind", ["own", "unet", "dit"])
def test_labels_that_a_generator_does_not_know(kind, labels):
    """-1 is no name for the last class."""
    networks = {
        "own": lambda: Preconditioned(MLP((2,), 8, 1, label_dim=10), (2,), classes=10),
        "unet": lambda: _flow(unet(num_class_embeds=10), "UNet2DModel"),
        "dit": lambda: _flow(dit(), "DiTTransformer2DModel"),
    }
    z = torch.zeros(1, *{"own": (2,), "unet": (3, 8, 8), "dit": (4, 8, 8)}[kind])
    generator = Generator(networks[kind](), (2.5,))
    with pytest.raises(ValueError, match=r"condition = .*class labels 0 … 9"):
        generator(z, labels)
    assert not generator(z, torch.tensor([9])).isnan().any()


def _flow(model, family):
    return FlowPrediction(DiffusersNetwork(model, FAMILIES[family], classes=10), steps=999)


@pytest.mark.parametrize("labels", [[0, 3, 9], [9]])
def test_labels_are_rows_of_the_identity(labels):
    seen = []
    network = MLP((2,), 8, 1, label_dim=10)
    network.register_forward_hook(lambda _, given, __: seen.append(given[2]))
    Preconditioned(network, (2,), classes=10)(
        torch.zeros(len(labels), 2), torch.ones(len(labels)), torch.tensor(labels)
    )
    assert torch.equal(seen[0], one_hot(torch.tensor(labels), 10).float())


def test_images_of_ones_own_have_labels_from_0_on():
    with pytest.raises(ValueError, match="labels = -1"):
        array_set("mine", torch.zeros(2, 2), torch.tensor([0, -1]))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("encoder_hid_dim_type", "text_proj"),
        ("addition_embed_type", "image"),
        ("class_embed_type", "projection"),
        ("cross_attention_dim", [16, 32]),
    ],
)
def test_networks_that_take_something_else_are_refused_by_the_setting(key, value):
    with pytest.raises(ValueError, match=key):
        FAMILIES["UNet2DConditionModel"].condition({"cross_attention_dim": 16} | {key: value})


def test_equal_widths_in_a_list_are_one_width():
    assert FAMILIES["UNet2DConditionModel"].condition({"cross_attention_dim": [16, 16]}).text.width == 16
