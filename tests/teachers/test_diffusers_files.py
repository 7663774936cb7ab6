"""Folders of diffusers' in all their forms, damaged ones and hostile ones."""

import io
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import unet

from simdistill.cli import main
from simdistill.teachers.loading import load_teacher

diffusers = pytest.importorskip("diffusers")


def test_the_networks_own_folder_will_do(pixels, tmp_path, rng):
    """By itself in a pipeline's folder, or with all files in one, as the first diffusers wrote them."""
    for name in ("unet/config.json", "unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"):
        shutil.copy(pixels / name, tmp_path)
    x, sigma = torch.randn(2, 3, 8, 8, generator=rng), torch.tensor([0.01, 0.4])
    expected = load_teacher(str(pixels)).denoiser(x, sigma)
    for place in (pixels / "unet", tmp_path):
        assert torch.equal(load_teacher(str(place)).denoiser(x, sigma), expected)


def test_a_config_from_before_diffusers_named_its_dit(latents, tmp_path, rng):
    folder = shutil.copytree(latents, tmp_path / "old")
    rewrite(folder / "transformer" / "config.json", _class_name="Transformer2DModel", num_vector_embeds=None)
    x, sigma, labels = torch.randn(2, 4, 8, 8, generator=rng), torch.tensor([0.01, 0.4]), torch.tensor([3, 4])
    old, new = (load_teacher(str(place)).denoiser(x, sigma, labels) for place in (folder, latents))
    assert torch.equal(old, new)


def with_bin(pixels, folder, content):
    """The folder with a .bin in place of its safetensors."""
    shutil.copytree(pixels, folder)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(content, folder / "unet" / "diffusion_pytorch_model.bin")
    return folder


def test_a_bin_of_tensors_is_read(pixels, tmp_path, rng):
    folder = with_bin(pixels, tmp_path / "bin", unet().state_dict())
    x, sigma = torch.randn(2, 3, 8, 8, generator=rng), torch.tensor([0.01, 0.4])
    assert torch.equal(load_teacher(str(folder)).denoiser(x, sigma), load_teacher(str(pixels)).denoiser(x, sigma))


class Payload:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class Nested(Payload):
    """One inside the bytes of a tensor's storage, which torch's own function would unpickle without restraint."""

    def __reduce__(self):
        inner = io.BytesIO()
        torch.save(Payload(self.path), inner)
        return torch.storage._load_from_bytes, (inner.getvalue(),)


@pytest.mark.parametrize("payload", [Payload, Nested])
def test_a_hostile_bin_is_refused_and_never_runs(pixels, tmp_path, payload):
    victim = tmp_path / "victim"
    folder = with_bin(pixels, tmp_path / "bin", {**unet().state_dict(), "conv_in.bias": payload(victim)})
    with pytest.raises(ValueError, match="cannot be read as a UNet2DModel"):
        load_teacher(str(folder))
    assert not victim.exists()
    torch.load(folder / "unet" / "diffusion_pytorch_model.bin", weights_only=False)
    assert victim.exists()  # it would have


def rewrite(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def take_a_tensor(folder):
    path = folder / "unet" / WEIGHTS
    save_file({name: tensor for name, tensor in load_file(path).items() if name != "conv_in.bias"}, path)


def add_a_tensor(folder):
    path = folder / "unet" / WEIGHTS
    save_file({**load_file(path), "odd": torch.ones(1)}, path)


UNET, SCHEDULER, WEIGHTS = "unet/config.json", "scheduler/scheduler_config.json", "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / UNET).unlink(), "no unet/config.json, transformer/config.json or config.json in it"),
        (lambda f: (f / SCHEDULER).unlink(), "no scheduler/scheduler_config.json in it or beside it"),
        (lambda f: (f / UNET).write_text("{"), "cannot be read (JSONDecodeError"),
        (lambda f: (f / UNET).write_text("[1]"), "'[1]': must be a JSON object"),
        (lambda f: rewrite(f / UNET, _class_name="UNet3DConditionModel"), "must be UNet2DModel or DiT"),
        (lambda f: rewrite(f / UNET, _class_name="os.system"), "'os.system': must be UNet2DModel"),
        (lambda f: rewrite(f / UNET, sample_size=None), "sample_size = None: must be the height and width"),
        (lambda f: rewrite(f / UNET, out_channels=4), "out_channels = 4: must be 3 as in_channels"),
        (lambda f: rewrite(f / UNET, class_embed_type="timestep"), "class_embed_type = 'timestep': must be null"),
        (lambda f: rewrite(f / UNET, quantization_config={"a": 1}), "quantization_config = 'given': must be absent"),
        (lambda f: rewrite(f / UNET, layers_per_block=2), "Error(s) in loading state_dict"),
        (take_a_tensor, "weights = ['conv_in.bias missing']: must be exactly those of the UNet2DModel"),
        (add_a_tensor, "weights = ['odd unexpected']: must be exactly those of the UNet2DModel"),
        (lambda f: rewrite(f / UNET, block_out_channels=[8, 8]), "cannot be read as a UNet2DModel"),
        (lambda f: rewrite(f / UNET, act_fn="nosuch"), "cannot be read as a UNet2DModel"),
        (lambda f: (f / "unet" / WEIGHTS).unlink(), "cannot be read as a UNet2DModel"),
        (lambda f: (f / "unet" / WEIGHTS).write_bytes(b"PK"), "cannot be read as a UNet2DModel"),
        (lambda f: rewrite(f / SCHEDULER, _class_name="ScoreSdeVeScheduler"), "must be one of DDPMScheduler"),
        (lambda f: rewrite(f / SCHEDULER, prediction_type="flow"), "must be one of epsilon, v_prediction"),
        (lambda f: rewrite(f / SCHEDULER, beta_schedule="nosuch"), "betas cannot be read"),
        (lambda f: rewrite(f / SCHEDULER, trained_betas=[0.1, -0.1, 0.1]), "betas = ["),
    ],
)  # fmt: skip
def test_bad_folders(pixels, tmp_path, capfd, damage, message):
    folder = shutil.copytree(pixels, tmp_path / "bad")
    damage(folder)
    assert main(["distill", "cifar10-uncond", "--teacher", str(folder), "--dry-run"]) == 2
    shown = capfd.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1, shown.err
    assert message in shown.err


def test_a_missing_library_names_its_extra(pixels, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ValueError, match=r'pip install "simdistill\[diffusers\]"'):
        load_teacher(str(pixels))
