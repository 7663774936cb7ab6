"""Teachers in diffusers' folders, against diffusers' own samplers, and distilled."""

import copy
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import autoencoder, dit, euler, scheduler, start, unet

from simdistill.cli import main
from simdistill.config.recipes import RECIPES, Recipe
from simdistill.evaluation.quality import evaluate, reference_for
from simdistill.method.noise import DiscreteVP
from simdistill.method.samplers import noise_from_seeds
from simdistill.teachers.loading import load_teacher
from simdistill.training.trainer import DistillationTrainer
from simdistill.workflows import evaluating, models

diffusers = pytest.importorskip("diffusers")


ROOT = Path(__file__).parents[2]


# ---- samples, against diffusers


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(
    "betas",
    [
        {},
        {"beta_schedule": "scaled_linear"},
        {"trained_betas": [0.001, 0.01, 0.02, 0.002] * 5},
        {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 1000},
        {"rescale_betas_zero_snr": True, "num_train_timesteps": 1000},
    ],
    ids=["linear", "scaled-linear", "own", "cosine", "zero-snr"],
)
def test_ddims_samples_are_diffusers_own(tmp_path, prediction, betas, rng):
    settings = {"prediction_type": prediction, **betas}
    model, sampler = unet(), scheduler(**settings)
    model.save_pretrained(tmp_path / "unet")
    sampler.save_pretrained(tmp_path / "scheduler")
    teacher = load_teacher(str(tmp_path))
    assert (teacher.shape, teacher.classes, teacher.judged.decode) == ((3, 8, 8), 0, None)
    z = torch.randn(3, 3, 8, 8, generator=rng)
    sampler.set_timesteps(10)
    theirs, times = z, sampler.timesteps.tolist()
    for t in times:
        with torch.no_grad():
            theirs = sampler.step(model(theirs, t).sample, t, theirs).prev_sample
    ours = euler(teacher, *start(sampler, z), None)
    assert ((ours - theirs).norm() / theirs.norm()).item() < 2e-5


def test_a_pipelines_pictures_are_ours(pixels):
    pipeline = diffusers.DDIMPipeline.from_pretrained(pixels)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(4, torch.Generator().manual_seed(3), num_inference_steps=5, output_type="np").images
    z = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    ours = euler(load_teacher(str(pixels)), *start(pipeline.scheduler, z), None)
    ours = (ours / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert ((ours > 0) & (ours < 1)).mean() > 0.5
    np.testing.assert_allclose(ours, images, rtol=0, atol=1e-5)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_dits_pictures_are_ours(tmp_path, guidance):
    network = dit(num_embeds_ada_norm=1000).eval()  # the pipeline knows no other null label than 1000
    pipeline = diffusers.DiTPipeline(network, autoencoder(), scheduler())
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(tmp_path)
    rng, labels = torch.Generator().manual_seed(3), [7, 0, 9, 7]
    images = pipeline(labels, guidance, rng, num_inference_steps=5, output_type="np").images
    teacher = load_teacher(str(tmp_path)).prepared(Recipe(teacher_guidance=guidance))
    assert (teacher.shape, teacher.classes) == ((4, 8, 8), 1000)
    z = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    ours = euler(teacher, *start(pipeline.scheduler, z), torch.tensor(labels))
    ours = (teacher.decoded(ours) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert ours.shape == (4, 16, 16, 3)
    assert ((ours > 0) & (ours < 1)).mean() > 0.5
    np.testing.assert_allclose(ours, images, rtol=0, atol=1e-5)


def test_an_unconditional_latent_pipelines_pictures_are_ours(tmp_path):
    settings = {"block_out_channels": (4, 4), "norm_num_groups": 2, "num_vq_embeddings": 32, "scaling_factor": 0.3}
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    diffusers.LDMPipeline(diffusers.VQModel(**settings, **blocks), unet(), scheduler()).save_pretrained(tmp_path)
    pipeline = diffusers.LDMPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    rng = torch.Generator().manual_seed(3)
    images = pipeline(2, rng, num_inference_steps=5, output_type="np").images
    z = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    teacher = load_teacher(str(tmp_path))
    ours = teacher.decoded(euler(teacher, *start(pipeline.scheduler, z), None))
    ours = (ours / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert ours.shape == (2, 16, 16, 3)
    np.testing.assert_allclose(ours, images, rtol=0, atol=1e-5)


def test_labels_matter_and_are_asked_for(latents, rng):
    teacher = load_teacher(str(latents))
    x, sigma = torch.randn(2, 4, 8, 8, generator=rng), torch.full((2,), 0.3)
    one, other = (teacher.denoiser(x, sigma, torch.tensor([k, k])) for k in (1, 2))
    assert (one - other).abs().max() > 1e-3


def test_a_class_conditional_unet(tmp_path, rng):
    model = unet(num_class_embeds=5, out_channels=6)  # with a learned variance
    model.save_pretrained(tmp_path)
    scheduler().save_pretrained(tmp_path)
    teacher = load_teacher(str(tmp_path))
    assert teacher.classes == 5
    x, labels = torch.randn(2, 3, 8, 8, generator=rng), torch.tensor([4, 0])
    sigma = torch.full((2,), teacher.sigma_max)
    expected = x - sigma[0] * model(x / (1 + sigma[0] ** 2).sqrt(), 19, labels).sample[:, :3]
    torch.testing.assert_close(teacher.denoiser(x, sigma, labels), expected.detach())


# ---- the range of noise levels


def test_ddpms_levels(tmp_path):
    unet().save_pretrained(tmp_path)
    diffusers.DDPMScheduler().save_pretrained(tmp_path)
    teacher = load_teacher(str(tmp_path))
    table = DiscreteVP().table()  # without its first level, sigma² = 1/0.9999 - 1
    assert teacher.sigma_min == pytest.approx((1 / 0.9999 - 1) ** 0.5, rel=1e-6)
    assert teacher.sigma_max == pytest.approx(157.407, rel=1e-5)
    torch.testing.assert_close(teacher.denoiser.time.sigmas[1:], table, rtol=1e-6, atol=0)


def test_samplers_are_kept_from_levels_that_are_all_noise(tmp_path):
    """The cosine schedule ends at 20,000, and one of zero terminal signal at infinity."""
    unet().save_pretrained(tmp_path)
    for settings in ({"beta_schedule": "squaredcos_cap_v2"}, {"rescale_betas_zero_snr": True}):
        diffusers.DDPMScheduler(**settings).save_pretrained(tmp_path)
        teacher = load_teacher(str(tmp_path))
        assert 100 < teacher.sigma_max < 160
        highest = torch.tensor([1e9])
        assert teacher.denoiser.time(highest).tolist() == [999 if "beta_schedule" in settings else 998]


def test_the_residual_keeps_its_digits(pixels, rng):
    teacher = load_teacher(str(pixels))
    exact = copy.deepcopy(teacher.denoiser).double()
    x, sigma = torch.randn(4, 3, 8, 8, generator=rng), torch.full((4,), teacher.sigma_min)
    ours, expected = teacher.denoiser.residual(x, sigma), exact.residual(x.double(), sigma.double())
    assert ((ours - expected).norm() / expected.norm()).item() < 3e-6


# ---- distillation


def test_the_docs_own_network_is_a_teacher():
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "teachers.md").read_text(), re.DOTALL)
    names = {}
    exec(code, names)
    teacher = names["teacher"]()
    teacher.check()
    assert [name for name, _ in teacher.trainable.named_parameters()] == ["network.layer.weight", "network.layer.bias"]
    assert teacher.denoiser.time(torch.tensor([teacher.sigma_max])).tolist() == [999]


def test_copies_in_training_drop_no_labels(latents):
    recipe = replace(RECIPES["digits"], teacher="", batch=4, iterations=10)
    trainer = DistillationTrainer(load_teacher(str(latents)), recipe)
    generator, online = trainer.student, trainer.networks["online"]
    before = copy.deepcopy(generator.state_dict())
    for _ in range(2):  # at the first all networks are the teacher, and y = 0
        trainer.step()
    for network in (online, generator):
        assert not any(module.training for module in network.modules())
    moved = [name for name, tensor in generator.state_dict().items() if not torch.equal(tensor, before[name])]
    assert {"pos_embed.proj.weight", "proj_out_2.weight"} <= {name.partition("model.")[2] for name in moved}
    z, labels = torch.randn(64, 4, 8, 8), torch.arange(64) % 10
    with torch.no_grad():
        assert torch.equal(generator(z, labels), generator(z, labels))
        table = generator.get_submodule("denoiser.network.model.transformer_blocks.0.norm1.emb.class_embedder")
        table.embedding_table.weight[10] = torch.nan  # the null label's
        assert generator(z, labels).isfinite().all()


@pytest.fixture
def quick(coarse, monkeypatch):
    monkeypatch.setattr(evaluating, "write_report", lambda _: None)
    monkeypatch.setattr(evaluating, "reference_for", lambda teacher, _, *a, **k: reference_for(teacher, 20, *a, **k))
    monkeypatch.setattr(evaluating, "evaluate", lambda *a, **k: evaluate(*a[:3], 20, 2, **k))


@pytest.mark.usefixtures("quick")
def test_a_run_finds_its_teacher_again(latents, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(latents.parent)
    teacher = shutil.copytree(latents, tmp_path / "teacher")
    out = tmp_path / "run"
    options = ["--batch", "4", "--out", str(out), "--json"]
    assert main(["distill", "cifar10-cond", "--teacher", str(teacher), "--iterations", "3", *options]) == 0
    assert json.loads(capsys.readouterr().out)["reference"] == "20 samples of the teacher"
    assert Image.open(out / "images" / "student.png").size == (10 * 34 - 2, 34 - 2)  # decoded: 16 × 16, doubled

    assert main(["sample", str(out), "--seeds", "0-3", "--labels", "3", "--out", str(tmp_path / "s.npy")]) == 0
    assert main(["sample", str(out), "--seeds", "0-3", "--labels", "3", "--out", str(tmp_path / "s.png")]) == 0
    numbers = torch.from_numpy(np.load(tmp_path / "s.npy"))
    generator, _ = models.load_generator(out)
    z = noise_from_seeds(range(4), (4, 8, 8))
    torch.testing.assert_close(numbers, generator(z, torch.tensor([3] * 4)).detach(), rtol=0, atol=1e-5)
    corner = (load_teacher(str(teacher)).decoded(numbers)[0, :, 0, 0].clamp(-1, 1) + 1) * 127.5
    assert np.abs(np.asarray(Image.open(tmp_path / "s.png"))[0, 0] - corner.numpy()).max() < 1

    assert main(["evaluate", str(out), "--samples", "20", "--seeds", "2", "--json"]) == 0
    (out / "evaluation.json").unlink()
    assert main(["distill", "--resume", str(out), "--json"]) == 0
    assert (out / "evaluation.json").exists()

    moved = shutil.move(teacher, tmp_path / "moved")
    capsys.readouterr()
    assert main(["sample", str(out), "--out", str(tmp_path / "t.npy")]) == 2
    assert "name its teacher again with --teacher" in capsys.readouterr().err
    assert main(["sample", str(out), "--teacher", str(moved), "--seeds", "0-3", "--labels", "3", "--out",
                 str(tmp_path / "t.npy")]) == 0  # fmt: skip
    np.testing.assert_array_equal(np.load(tmp_path / "t.npy"), numbers)
