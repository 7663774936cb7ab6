"""A generator as the paper's authors publish theirs, imported: sampled, evaluated, exported, and nothing more."""

import hashlib
import json
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from original_pixart import OriginalPixArt
from text_encoders import encoded, pipeline

from simdistill.cli import main
from simdistill.commands.common import own_teacher
from simdistill.config.settings import read_toml
from simdistill.method.samplers import noise_from_seeds
from simdistill.runs.folder import RunFolder, content_of
from simdistill.support.tensors import read_tensors
from simdistill.teachers.pipeline_encoders import PipelineEncoder
from simdistill.workflows import evaluating, models
from simdistill.workflows.converting import convert_generator

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

SAID = ["red hat", "a person with green glasses"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A whole tiny pipeline with PixArt's own thousand levels."""
    folder = tmp_path_factory.mktemp("teachers") / "pixart"
    pipeline("PixArtAlphaPipeline", folder, num_train_timesteps=1000)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("published") / "SIM-DiT.pth"
    state = OriginalPixArt().state_dict()
    torch.save({"ema": {f"module.model.{name}": tensor for name, tensor in state.items()}}, path)
    return path


@pytest.fixture(scope="module")
def run(checkpoint, teacher, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "sim-dit"
    convert_generator(checkpoint, out, teacher)
    return out


def expected(z, text):
    """[B.14] with the original network: x = 2.5 z, x - 2.5 F(x/√(1 + 2.5²), 440, text), F's first four channels."""
    state, time = 2.5 * z / (1 + 2.5**2) ** 0.5, torch.full((len(z),), 440)
    return 2.5 * z - 2.5 * OriginalPixArt()(state, time, text.prompt_embeds, text.attention_mask)[:, :4]


def test_the_command_leaves_a_run_and_says_what_it_is(checkpoint, teacher, run, tmp_path, capsys):
    out = tmp_path / "new" / "sim-dit"
    words = ["convert", str(checkpoint), str(out), "--teacher", str(teacher)]
    assert main([*words, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    original = OriginalPixArt()
    assert printed == {
        **{"out": str(out), "network": "PixArtTransformer2DModel", "teacher": str(teacher)},
        **{"sigma_init": 2.5, "time": 440, "shape": [4, 8, 8]},
        "parameters": sum(p.numel() for p in original.parameters()) - original.y_embedder.y_embedding.numel(),
        **{"source": "SIM-DiT.pth", "sha256": digest},
    }
    told = {"verb": "convert", "teacher": str(teacher), "teacher_levels": "paper", "sigma_init": 2.5}
    assert read_toml(out / "config.toml") == told
    assert "repeated by" not in (out / "config.toml").read_text()
    assert sorted(path.name for path in content_of(out)) == ["config.toml", "generator.safetensors"]
    assert (out / "generator.safetensors").read_bytes() == RunFolder(run).network.read_bytes()
    assert models.load_generator(out)[1]["sha256"] == digest
    assert main([*words, "--overwrite"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{out}: PixArtTransformer2DModel with {printed['parameters']:,} parameters, ")
    assert all(part in line for part in ("sigma = 2.5", " 440)", "samples 4×8×8"))


def test_its_samples_are_the_original_networks(teacher, run, tmp_path, capsys):
    words = ["sample", str(run), "--seeds", "0-3", *(word for prompt in SAID for word in ("--prompt", prompt))]
    assert main([*words, "--out", str(tmp_path / "s.npy")]) == 0
    z, text = noise_from_seeds(range(4), (4, 8, 8)), PipelineEncoder(teacher)(SAID)[torch.tensor([0, 1, 0, 1])]
    drawn = torch.from_numpy(np.load(tmp_path / "s.npy"))
    torch.testing.assert_close(drawn, expected(z, text), rtol=0, atol=2e-5)
    assert main([*words, "--out", str(tmp_path / "s.png")]) == 0  # decoded
    capsys.readouterr()
    assert main(["sample", str(run), "--seeds", "0-3"]) == 2
    assert f"prompt = '': must be given: {run} has no prompts of its own" in capsys.readouterr().err


def test_exported_it_is_a_pipeline_that_samples_as_the_original_network(teacher, run, tmp_path, capsys):
    assert main(["export", str(run), "--to", "diffusers", "--out", str(tmp_path / "given"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["difference"] < 1e-4
    theirs = diffusers.PixArtAlphaPipeline.from_pretrained(tmp_path / "given")
    theirs.set_progress_bar_config(disable=True)
    z = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    alone = {"use_resolution_binning": False, "clean_caption": False, "height": 16, "width": 16}
    once = {"num_inference_steps": 1, "guidance_scale": 1.0, "output_type": "latent"}
    latents = theirs(SAID, latents=z, **once, **alone).images
    torch.testing.assert_close(latents, expected(z, PipelineEncoder(teacher)(SAID)), rtol=1e-4, atol=1e-4)


def test_it_is_evaluated_on_prompts_that_are_named_and_not_trained_on(teacher, run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(evaluating, "PICTURED", 4)
    shutil.copytree(run, tmp_path / "run")
    words = ["evaluate", str(tmp_path / "run"), "--samples", "10", "--seeds", "2", "--json"]
    assert main(words) == 2
    assert "prompts = '': must be given for" in capsys.readouterr().err
    assert main([*words, "--prompts", str(encoded(teacher, tmp_path))]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["teacher"]["nfe"], figures["student"]["nfe"]) == (35, 1)
    assert figures["student"]["frechet"]["mean"] > 0
    report = (tmp_path / "run" / "report.html").read_text()
    assert "An imported generator" in report
    assert all(
        title not in report for title in ("Reproduce", "<h2>Training</h2>", "Training time", "Samples over time")
    )

    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert main(["distill", "--resume", str(tmp_path / "run")]) == 2
    assert "must be a run that was trained here" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before


def test_a_teacher_that_has_moved_keeps_the_papers_levels(teacher, run, tmp_path, capsys):
    moved, out = shutil.copytree(teacher, tmp_path / "moved"), shutil.copytree(run, tmp_path / "run")
    config = (out / "config.toml").read_text()
    (out / "config.toml").write_text(config.replace(str(teacher), str(tmp_path / "gone")))
    asked = ["sample", str(out), "--prompt", "hair", "--seeds", "0-1", "--out", str(tmp_path / "s.npy")]
    assert main(asked) == 2
    assert "name its teacher again with --teacher" in capsys.readouterr().err
    assert main([*asked, "--teacher", str(moved)]) == 0
    text = PipelineEncoder(teacher)(["hair"])[torch.tensor([0, 0])]
    drawn = torch.from_numpy(np.load(tmp_path / "s.npy"))
    torch.testing.assert_close(drawn, expected(noise_from_seeds(range(2), (4, 8, 8)), text), rtol=0, atol=2e-5)
    assert own_teacher(str(moved), out).sigma_max == pytest.approx(156.6155, rel=1e-6)
    assert own_teacher(str(moved), tmp_path).sigma_max == pytest.approx(157.407, rel=1e-5)  # of no run


def test_in_half_precision(checkpoint, teacher, run, tmp_path):
    convert_generator(checkpoint, tmp_path / "half", teacher, half=True)
    (exact, _), (rounded, _) = (read_tensors(RunFolder(path).network) for path in (run, tmp_path / "half"))
    assert exact.keys() == rounded.keys()
    assert all(torch.equal(rounded[name], tensor.half()) for name, tensor in exact.items())


def test_bad_requests_are_answered_with_one_line(checkpoint, teacher, tmp_path, capsys, refused):
    other, short = tmp_path / "other", tmp_path / "short"
    pipeline("StableDiffusionPipeline", other, num_train_timesteps=1000)
    shutil.copytree(teacher, short)
    diffusers.DDIMScheduler(num_train_timesteps=20).save_pretrained(short / "scheduler")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "config.toml").write_text("font = 'serif'\n")
    out, given = tmp_path / "run", ["--teacher", teacher]
    capsys.readouterr()  # what transformers says while it saves

    error = partial(refused, "convert")

    assert "--teacher is missing: " in error(checkpoint, out)
    assert "student.safetensors': must be a folder" in error(checkpoint, tmp_path / "student.safetensors", *given)
    for more in ((), ("--overwrite",)):
        assert "exists, and is not a run's folder; give another --out" in error(
            checkpoint, tmp_path / "thesis", *given, *more
        )
    assert "must be the diffusers folder of its teacher" in error(checkpoint, out, "--teacher", tmp_path / "none")
    assert "network = 'UNet2DConditionModel': must be PixArtTransformer2DModel" in error(
        checkpoint, out, "--teacher", other
    )
    assert 'teacher-levels = "paper", for the betas of' in error(checkpoint, out, "--teacher", short)
    assert "no.pth: no such file" in error(tmp_path / "no.pth", out, *given)
    assert "--teacher = " in error(tmp_path / "edm.pkl", tmp_path / "edm.safetensors", *given)
    assert not out.exists()
