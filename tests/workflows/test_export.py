"""Exported generators: what the files hold, that they run without this package, and when there are none."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import simdistill
from simdistill.cli import main
from simdistill.config.recipes import RECIPES
from simdistill.config.settings import to_mapping
from simdistill.method.denoisers import Preconditioned
from simdistill.method.samplers import noise_from_seeds
from simdistill.networks.mlp import MLP
from simdistill.networks.unet import SongUNet
from simdistill.runs.folder import RunFolder
from simdistill.teachers.families import FAMILIES, DiffusersNetwork
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.prediction_types import EpsilonPrediction, NearestTime, SamplePrediction, VelocityPrediction
from simdistill.teachers.teacher import Teacher
from simdistill.teachers.weights import write_network
from simdistill.workflows import formats, models
from simdistill.workflows.exporting import export

SUFFIXES = {"safetensors": ".safetensors", "onnx": ".onnx", "torch-export": ".pt2"}
PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
SNIPPETS = {re.search(r"one-step\.\w+", code)[0]: code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)}

ALONE = """
import sys
class NoPackage:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "simdistill":
            raise ImportError("to be done without")
sys.meta_path.insert(0, NoPackage())
"""


def run_alone(code, folder):
    """Run `code` in a fresh process in `folder`, where the package cannot be imported."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [sys.executable, "-c", f"{ALONE}\n{code}"]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def stir(module):
    """Weights that all matter: some layers start at zero."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return module


def a_run(path, denoiser, shape, classes, teacher="digits"):
    """A run's folder as a distillation leaves it, with `denoiser` as the generator's network."""
    run = RunFolder.create(path, {"verb": "distill", **to_mapping(replace(RECIPES["digits"], teacher=teacher))})
    write_network(run.network, stir(denoiser), levels=[2.5], shape=shape, classes=classes)
    return run.path


def mlp():
    return Preconditioned(MLP((1, 8, 8), 16, 1, 10), (1, 8, 8), 10)


def song(**more):
    unet = SongUNet(32, 3, 3, model_channels=8, channel_mult=[1, 1], num_blocks=1, attn_resolutions=[16], **more)
    return Preconditioned(unet, (3, 32, 32), unet.label_dim)


@pytest.fixture
def digits(tmp_path):
    return a_run(tmp_path / "digits", mlp(), (1, 8, 8), 10)


def diffusers_run(tmp_path, kind="unet"):
    """A run of a teacher in a diffusers folder."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    if kind == "unet":
        model = diffusers.UNet2DModel(
            sample_size=8, block_out_channels=(8, 16), layers_per_block=1, attention_head_dim=4, norm_num_groups=4,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            out_channels=6,
        )  # fmt: skip
    else:
        model = diffusers.DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=4, num_layers=2, sample_size=8, num_embeds_ada_norm=10,
            out_channels=8,
        )  # fmt: skip
    model.save_pretrained(tmp_path / "teacher")
    diffusers.DDPMScheduler().save_pretrained(tmp_path / "teacher")
    teacher = load_teacher(str(tmp_path / "teacher"))
    return a_run(tmp_path / "run", teacher.denoiser, teacher.shape, teacher.classes, teacher.name)


# ---- a small network, in all formats


@pytest.mark.parametrize(
    "to", [pytest.param(to, marks=[pytest.mark.slow] if to == "torch-export" else []) for to in SUFFIXES]
)
def test_a_file_is_compared_with_the_generator_and_says_what_it_is(digits, capsys, to):
    assert main(["export", str(digits), "--to", to, "--json"]) == 0
    shown = capsys.readouterr()
    assert shown.err.splitlines() == [
        f"exporting {sum(p.numel() for p in mlp().parameters()):,} parameters to {to}",
        "comparing batches of 1, 3, 65 samples with the generator's",
    ]
    said, path = json.loads(shown.out), digits / f"one-step{SUFFIXES[to]}"
    assert (said["out"], said["to"], said["bytes"]) == (str(path), to, path.stat().st_size)
    assert said["difference"] < 1e-5
    about = read_about(path)
    assert {name: about[name] for name in ("levels", "nfe", "shape", "classes", "simdistill")} == {
        "levels": [2.5],
        "nfe": 1,
        "shape": [1, 8, 8],
        "classes": 10,
        "simdistill": simdistill.__version__,
    }
    assert about["inputs"] == {"z": "float32 [batch, 1, 8, 8], standard normal", "labels": "int64 [batch], 0 to 9"}
    assert about["samples"].startswith("float32, the shape of z")
    assert {name: said[name] for name in about} == about
    assert sorted(p.name for p in digits.iterdir()) == [".lock", "config.toml", "generator.safetensors", path.name]
    if to != "safetensors":
        draws_as_sample_does(digits, path)


def read_about(path):
    """The description in a file's metadata, read as docs/export.md says."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            return json.loads(file.metadata()["generator"])
    if path.suffix == ".onnx":
        session = pytest.importorskip("onnxruntime").InferenceSession(path)
        return json.loads(session.get_modelmeta().custom_metadata_map["generator"])
    files = {"generator.json": ""}
    torch.export.load(path, extra_files=files)
    return json.loads(files["generator.json"])


def draws_as_sample_does(run, path):
    """The lines of docs/export.md run without the package, and draw what `simdistill sample` draws."""
    assert main(["sample", str(run), "--seeds", "0-63", "--out", str(run / "sampled.npy")]) == 0
    code = f"{SNIPPETS[path.name]}\nimport numpy as np\n"
    if path.suffix == ".onnx":  # torch's z, without torch
        np.save(run / "z.npy", noise_from_seeds(range(64), (1, 8, 8)).numpy())
        code += 'assert pixels.shape == samples.shape == (64, 1, 8, 8)\nassert "torch" not in sys.modules\n'
        code += '(samples,) = session.run(None, {"z": np.load("z.npy"), "labels": labels})\n'
    run_alone(f'{code}np.save("alone.npy", samples)', run)
    np.testing.assert_allclose(np.load(run / "alone.npy"), np.load(run / "sampled.npy"), rtol=0, atol=1e-5)


# ---- networks with their formula


def samples_by_formula(path, network, z, labels):
    about = read_about(path)
    with safe_open(path, "pt") as file:
        network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    with torch.no_grad():
        f = network(about["c_in"] * z + about["b_in"], torch.full((len(z),), about["time"]), labels)
    return about["c_skip"] * z + about["b_skip"] + about["c_out"] * f


@pytest.mark.parametrize("build", [mlp, song, lambda: song(label_dim=4)], ids=["mlp", "song", "song-cond"])
def test_a_network_of_edms_kind_runs_by_its_own_names(tmp_path, build):
    denoiser = build()
    run = a_run(tmp_path / "run", denoiser, denoiser.shape, denoiser.classes)
    path = export(run, "safetensors").path
    about = read_about(path)
    assert (about["network"]["class"], about["network"]["labels"]) == (type(denoiser.model).__name__, "one-hot")
    z, labels = noise_from_seeds(range(4), denoiser.shape), torch.tensor([0, 3, 2, 3]) if denoiser.classes else None
    generator, _ = models.load_generator(run)
    one_hot = None if labels is None else torch.eye(denoiser.classes)[labels]
    fresh = type(denoiser.model)(**about["network"]["arguments"]).eval()
    ours = samples_by_formula(path, fresh, z, one_hot)
    torch.testing.assert_close(ours, generator(z, labels), rtol=0, atol=1e-5)
    # c_skip sigma, c_out, c_in sigma and ln(sigma)/4 [Karras et al. 2022, Table 1]
    sigma, data = 2.5, 0.5
    variance = sigma**2 + data**2
    assert about["c_skip"] == pytest.approx(sigma * data**2 / variance, rel=1e-5)
    assert about["c_out"] == pytest.approx(sigma * data / variance**0.5, rel=1e-5)
    assert about["c_in"] == pytest.approx(sigma / variance**0.5, rel=1e-5)
    assert about["time"] == pytest.approx(np.log(sigma) / 4, rel=1e-5)


class Native(torch.nn.Module):
    """What a diffusers model looks like to its wrapper."""

    def __init__(self):
        super().__init__()
        self.config = {"width": 1, "_private": 2}
        self.layer = torch.nn.Linear(2, 2)

    def forward(self, state, timestep, class_labels, return_dict):
        return (self.layer(state) + timestep[:, None],)


@pytest.mark.parametrize(
    ("kind", "skip", "out"),
    [
        (EpsilonPrediction, 2.5, -2.5),
        (VelocityPrediction, 2.5 / 7.25, -2.5 / 7.25**0.5),
        (SamplePrediction, 0.0, 1.0),
    ],
)
def test_the_formula_of_each_parametrisation(tmp_path, kind, skip, out):
    denoiser = kind(DiffusersNetwork(Native(), FAMILIES["UNet2DModel"]), NearestTime(torch.tensor([0.1, 2.0, 9.0])))
    run = a_run(tmp_path / "run", denoiser, (2,), 0, "mine:teacher")
    about = export(run, "safetensors", teacher=Teacher(denoiser, (2,))).about
    assert about["network"] == {"class": "diffusers.Native", "config": {"width": 1}, "labels": "integers"}
    assert (about["c_skip"], about["c_out"]) == (pytest.approx(skip, abs=1e-6), pytest.approx(out, rel=1e-6))
    assert (about["c_in"], about["time"]) == (pytest.approx(2.5 / 7.25**0.5, rel=1e-6), 1)
    assert (about["b_in"], about["b_skip"]) == (0, 0)


class Centred(torch.nn.Module):
    """An epsilon predictor of data around 0.4, as a denoiser."""

    def __init__(self):
        super().__init__()
        self.network = DiffusersNetwork(Native(), FAMILIES["UNet2DModel"])

    def forward(self, x_t, sigma, condition=None):
        state, time = (x_t - 0.4) / (1 + sigma[0] ** 2).sqrt(), torch.zeros(len(x_t), dtype=torch.int64)
        return x_t - sigma[0] * self.network(state, time) + 0.1


def test_the_formula_has_constants_where_the_denoiser_has(tmp_path):
    run = a_run(tmp_path / "run", Centred(), (2,), 0, "mine:teacher")
    found = export(run, "safetensors", teacher=Teacher(Centred(), (2,)))  # which compares samples
    assert found.about["b_in"] == pytest.approx(-0.4 / 7.25**0.5, rel=1e-6)
    assert found.about["b_skip"] == pytest.approx(0.1, rel=1e-6)


# ---- no file


def test_a_file_that_draws_other_samples_is_not_left(digits, monkeypatch, capsys):
    read_off = formats._scalings
    monkeypatch.setattr(formats, "_scalings", lambda *a: {**read_off(*a), "c_skip": read_off(*a)["c_skip"] + 1e-3})
    before = sorted(digits.iterdir())
    assert main(["export", str(digits)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "one-step.safetensors: difference from the generator = 0.00" in shown.err
    assert "must be at most 0.0001" in shown.err
    assert sorted(digits.iterdir()) == before


def test_a_file_that_draws_no_numbers_is_not_left(digits, monkeypatch):
    monkeypatch.setitem(
        formats.FORMATS,
        "safetensors",
        replace(formats.FORMATS["safetensors"], read=lambda *_: lambda z, _: z / 0),
    )
    with pytest.raises(ValueError, match=r"difference from the generator = (nan|inf)"):
        export(digits, "safetensors")


def test_bad_requests(digits, capsys, monkeypatch, tmp_path):
    def error(*words):
        assert main(["export", *map(str, words)]) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        return shown.err.splitlines()[-1]

    assert "RUN is missing" in error()
    assert "not a run's folder" in error(tmp_path)
    assert "--to" in error(digits, "--to", "coreml")
    assert "must be a .onnx for --to onnx" in error(digits, "--to", "onnx", "--out", "x.pt2")
    assert "must be another file" in error(digits, "--out", digits / "generator.safetensors")
    assert "ema = 1: must be in 0 … 0" in error(digits, "--ema", "1")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert 'onnxruntime is missing; pip install "simdistill[onnx]"' in error(digits, "--to", "onnx")
    monkeypatch.setattr(formats, "PROTOBUF_LIMIT", 100)
    monkeypatch.delitem(sys.modules, "onnxruntime")
    assert "below 2 GB; use --to torch-export" in error(digits, "--to", "onnx")


class Branching(torch.nn.Module):
    """A denoiser of the user's own, with a choice that no graph can make."""

    def __init__(self):
        super().__init__()
        self.mean = torch.nn.Parameter(torch.tensor([1.0, -2.0]))

    def forward(self, x_t, sigma, condition=None):
        return x_t / 2 if x_t.mean() > 1e6 else x_t / 2 + self.mean


def test_what_cannot_be_traced_is_refused_but_stored(tmp_path):
    run = a_run(tmp_path / "run", Branching(), (2,), 0, "mine:teacher")
    with pytest.raises(ValueError, match="name its teacher again with --teacher"):
        export(run, "safetensors")
    teacher = Teacher(Branching(), (2,))
    with pytest.raises(ValueError, match=r"cannot trace this network \(.*use --to safetensors"):
        export(run, "torch-export", teacher=teacher)
    assert not (run / "one-step.pt2").exists()
    found = export(run, "safetensors", tmp_path / "mine.safetensors", teacher)
    assert found.difference == 0
    assert "formula" not in read_about(found.path)


# ---- larger networks: tracing takes seconds


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "torch-export"])
@pytest.mark.parametrize("build", [song, lambda: song(label_dim=4)], ids=["song", "song-cond"])
def test_edms_unet_is_traced(tmp_path, build, to):
    denoiser = build()
    run = a_run(tmp_path / "run", denoiser, denoiser.shape, denoiser.classes)
    assert export(run, to).difference < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unet", "dit"])
def test_diffusers_networks_are_exported(tmp_path, kind):
    run = diffusers_run(tmp_path, kind)
    for to in SUFFIXES:
        found = export(run, to)
        assert found.difference < 1e-4
        assert found.about["levels"] == [2.5]
    z, labels = noise_from_seeds(range(64), tuple(found.about["shape"])), torch.arange(64) % 10
    generator, _ = models.load_generator(run)
    expected = (generator(z, labels) if kind == "dit" else generator(z)).numpy()
    np.save(run / "z.npy", z.numpy())
    code = SNIPPETS["one-step.safetensors"].replace(
        'torch.randn(64, *about["shape"])', "torch.from_numpy(np.load('z.npy'))"
    )
    if kind == "dit":
        code = code.replace("UNet2DModel", "DiTTransformer2DModel").replace("time)", "time, torch.arange(64) % 10)")
    run_alone(f"import numpy as np\n{code}\nnp.save('alone.npy', samples)", run)
    np.testing.assert_allclose(np.load(run / "alone.npy"), expected, rtol=0, atol=1e-4)
