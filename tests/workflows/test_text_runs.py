"""Distilling with prompts, from the pipeline's folder to a pipeline's folder."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from text_encoders import PROMPTS, distill, encoded, pipeline, untrained

from simdistill.cli import main
from simdistill.config.recipes import RECIPES
from simdistill.config.settings import to_mapping
from simdistill.data.embeddings import Embeddings
from simdistill.data.prompts import read_prompts
from simdistill.evaluation.quality import evaluate, reference_for
from simdistill.method.generator import Generator
from simdistill.method.samplers import noise_from_seeds
from simdistill.reports.pictures import picture
from simdistill.runs.folder import RunFolder
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.pipeline_encoders import PipelineEncoder
from simdistill.teachers.weights import write_network
from simdistill.workflows import evaluating, models, sampling

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")


# ---- distilled with


@pytest.fixture
def quick(coarse, monkeypatch):
    monkeypatch.setattr(evaluating, "reference_for", lambda teacher, _, *a, **k: reference_for(teacher, 20, *a, **k))
    monkeypatch.setattr(evaluating, "evaluate", lambda *a, **k: evaluate(*a[:3], 20, 2, **k))


@pytest.mark.usefixtures("quick")
def test_a_run_from_prompts_to_samples(pixart, tmp_path, capsys):
    out, run = encoded(pixart, tmp_path), tmp_path / "run"
    assert distill(pixart, out, run, "--teacher-guidance", "3", "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["teacher"]["nfe"], figures["student"]["nfe"]) == (70, 1)

    asked = ["sample", str(run), "--seeds", "0-3", "--out", str(tmp_path / "s.npy")]
    assert main([*asked, "--prompt", "red hat", "--prompt", "hair"]) == 0
    numbers = torch.from_numpy(np.load(tmp_path / "s.npy"))
    generator, _ = models.load_generator(run)
    text = PipelineEncoder(pixart)(["red hat", "hair"])[torch.tensor([0, 1, 0, 1])]
    with torch.no_grad():
        expected = generator(noise_from_seeds(range(4), (4, 8, 8)), text)
    torch.testing.assert_close(numbers, expected, rtol=0, atol=1e-5)

    assert main(asked) == 0  # the run's own prompts in turn
    own = torch.from_numpy(np.load(tmp_path / "s.npy"))
    with torch.no_grad():
        expected = generator(noise_from_seeds(range(4), (4, 8, 8)), Embeddings(out)[torch.tensor([0, 1, 2, 0])])
    torch.testing.assert_close(own, expected, rtol=0, atol=1e-5)
    assert main(["evaluate", str(run), "--samples", "20", "--seeds", "2"]) == 0
    assert main(["sample", str(run), "--labels", "3"]) == 2
    assert "the generator has no classes" in capsys.readouterr().err
    assert main(["export", str(run), "--to", "onnx"]) == 2
    assert "--to = 'onnx': must be diffusers" in capsys.readouterr().err


@pytest.mark.slow
def test_a_plan_needs_no_prompts(pixart, capsys):
    assert main(["plan", "pixart-512", "--teacher", str(pixart), "--teacher-levels", "scheduler", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == sum(
        p.numel() for p in load_teacher(str(pixart)).trainable.parameters()
    )


@pytest.mark.usefixtures("quick")
def test_held_out_prompts_are_what_is_judged(pixart, tmp_path, capsys):
    out, run, texts = encoded(pixart, tmp_path), tmp_path / "run", ["blue hat", "short hair and glasses"]
    (tmp_path / "held-out.txt").write_text("\n".join(texts))
    other = tmp_path / "held-out"
    asked = ["--encoder", str(pixart), "--out", str(other)]
    assert main(["encode", str(tmp_path / "held-out.txt"), *asked]) == 0
    assert distill(pixart, out, run, "--held-out-prompts", str(other)) == 0
    expected, own = (sampling.sample(run, range(10), prompts=asked) for asked in (texts, ()))
    shown, held_out, seen = (
        np.asarray(Image.open(io.BytesIO(png))).astype(int)
        for png in ((run / "images" / "student.png").read_bytes(), picture(expected), picture(own))
    )
    assert np.abs(shown - held_out).max() <= 1
    assert np.abs(shown - seen).max() > 1
    damaged = json.loads((other / "embeddings.json").read_text()) | {"encoder": "another"}
    (other / "embeddings.json").write_text(json.dumps(damaged))
    assert distill(pixart, out, tmp_path / "again", "--held-out-prompts", str(other)) == 2
    assert "held_out_prompts = " in capsys.readouterr().err
    assert distill(pixart, out, tmp_path / "again", "--held-out-prompts", "nowhere") == 2
    assert "held_out_prompts = 'nowhere': must be" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


def test_prompts_of_a_file_are_drawn_as_those_that_are_typed(pixart, tmp_path):
    untrained(pixart, tmp_path / "run")
    asked = ["sample", str(tmp_path / "run"), "--seeds", "0-4", "--out", str(tmp_path / "s.npy"), "--prompt", "hat"]
    assert main([*asked, "--prompts", "figure-3"]) == 0
    drawn = np.load(tmp_path / "s.npy")
    assert main([*asked, *(word for prompt in read_prompts(Path("figure-3")) for word in ("--prompt", prompt))]) == 0
    np.testing.assert_allclose(np.load(tmp_path / "s.npy"), drawn, rtol=0, atol=1e-6)
    assert np.abs(drawn[1] - drawn[0]).max() > 0.1


# ---- given away


@pytest.mark.parametrize("name", ["PixArtAlphaPipeline", "StableDiffusionPipeline", "StableDiffusionXLPipeline"])
def test_a_student_as_a_pipeline_of_one_step(tmp_path, capsys, name):
    """Called as its users do: the pictures are those of the generator for the same noise and prompts."""
    teacher, run = tmp_path / "teacher", tmp_path / "run"
    pipeline(name, teacher, num_train_timesteps=1000)  # to sigma = 157
    student = untrained(teacher, run)

    assert main(["export", str(run), "--to", "diffusers", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["difference"] < 1e-4
    theirs = getattr(diffusers, name).from_pretrained(found["out"])
    theirs.set_progress_bar_config(disable=True)
    z = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    more = {"use_resolution_binning": False, "clean_caption": False} if name == "PixArtAlphaPipeline" else {}
    size = {"height": 16, "width": 16, "output_type": "latent"}
    latents = theirs(PROMPTS, num_inference_steps=1, guidance_scale=1.0, latents=z, **size, **more).images
    with torch.no_grad():
        expected = Generator(student, (2.5,))(z, PipelineEncoder(teacher)(PROMPTS))
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-4)

    assert main(["export", str(run), "--to", "diffusers"]) == 2
    assert "must be a new folder" in capsys.readouterr().err
    assert not list(run.glob(".pipeline*"))
    facts = {"levels": [80.0, 2.5], "shape": (4, 8, 8), "classes": 0, "text": True}
    write_network(RunFolder(run).network, student, **facts)
    assert main(["export", str(run), "--to", "diffusers", "--out", str(tmp_path / "two")]) == 2
    assert "--to diffusers: steps of the student = 2: must be 1" in capsys.readouterr().err


def test_other_runs_are_no_pipelines(tmp_path, capsys):
    recipe = replace(RECIPES["digits"], iterations=1)
    RunFolder.create(tmp_path / "run", {"verb": "distill", **to_mapping(recipe)})
    facts = {"levels": [2.5], "shape": (1, 8, 8), "classes": 10}
    write_network(RunFolder(tmp_path / "run").network, load_teacher("digits").denoiser, **facts)
    assert main(["export", str(tmp_path / "run"), "--to", "diffusers"]) == 2
    assert "--to = 'diffusers': must be for a run whose teacher is a text-to-image pipeline" in capsys.readouterr().err
