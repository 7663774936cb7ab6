"""The families of diffusers' pipelines: each fits diffusers' own classes, and a user's own is read like them."""

import importlib
import inspect
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from text_encoders import PROMPTS, t5_tokenizer
from tiny_models import TINY, S, autoencoder, dit, euler, start, unet

from simdistill.config.recipes import Recipe
from simdistill.teachers.autoencoders import Autoencoder
from simdistill.teachers.diffusers_process import rectified_flow, scheduled
from simdistill.teachers.encoders import load_encoder
from simdistill.teachers.families import FAMILIES, DiffusersNetwork, autoencoders, pipelines
from simdistill.teachers.families.family import picture_shape
from simdistill.teachers.loading import load_teacher

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

# fmt: off
ROWS = [  # a tiny network of the class; a sample's shape, the text's tokens, width and pooled vector, or the classes
    ("UNet2DModel",              unet,                                      (3, 8, 8),    None,          0),
    ("UNet2DModel",              lambda: unet(num_class_embeds=5),          (3, 8, 8),    None,          5),
    ("DiTTransformer2DModel",    dit,                                       (4, 8, 8),    None,         10),
    ("PixArtTransformer2DModel", TINY["PixArtAlphaPipeline"].build,         (4, 8, 8),   (120, 16,  0),  0),
    ("UNet2DConditionModel",     TINY["StableDiffusionPipeline"].build,     (4, 8, 8),    (77, 16,  0),  0),
    ("UNet2DConditionModel",     TINY["StableDiffusionXLPipeline"].build,   (4, 8, 8),    (77, 16, 12),  0),
    ("SD3Transformer2DModel",    TINY["StableDiffusion3Pipeline"].build,    (4, 8, 8),   (333, 16, 12),  0),
    ("FluxTransformer2DModel",   TINY["FluxPipeline"].build,              (4, 128, 128), (512, 16, 12),  0),
]
# fmt: on


@pytest.mark.parametrize(("name", "build", "shape", "text", "classes"), ROWS)
def test_what_a_family_reads_in_a_configuration(name, build, shape, text, classes):
    model, family = build(), FAMILIES[name]
    given = family.condition(model.config)
    assert type(model).__name__ == family.network == name
    assert family.shape(model.config) == shape
    assert given.classes == classes
    assert (None if given.text is None else (given.text.tokens, given.text.width, given.text.pooled)) == text
    x, time = torch.zeros(2, shape[0], 8, 8), torch.full((2,), 0.5 if family.process is rectified_flow else 7)
    condition = torch.zeros(2, dtype=torch.int64) if classes else given.text and given.text.blank(2)
    with torch.no_grad():
        assert DiffusersNetwork(model, family, (16, 16))(x, time, condition).shape == x.shape


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_names_classes_and_parts_that_diffusers_has(name):
    family = FAMILIES[name]
    assert issubclass(getattr(diffusers, family.network), torch.nn.Module)
    for latents in family.latents:
        assert issubclass(getattr(diffusers, latents.autoencoder), torch.nn.Module)
    for pipeline in family.pipelines:
        parts = inspect.signature(getattr(diffusers, pipeline.name).__init__).parameters
        assert {family.part, family.latents[0].part, pipeline.tokenizer, "scheduler"} <= parts.keys()
        assert family.network in str(parts[family.part].annotation)
        assert pipeline.limit > 1
        assert pipeline.exported == (family.process is scheduled)
        assert pipelines()[pipeline.name] is pipeline


def test_every_tiny_pipeline_has_a_family():
    assert pipelines().keys() == TINY.keys()
    assert autoencoders().keys() == {"AutoencoderKL", "VQModel"}
    assert {row[0] for row in ROWS} == FAMILIES.keys()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"in_channels": 4, "sample_size": [8]}, r"sample_size = \[8\]: must be the height and width"),
        ({"in_channels": 4, "sample_size": None}, "sample_size = None: must be the height and width"),
        ({"sample_size": 8}, "in_channels = None: must be the channels"),
        ({"sample_size": 8, "in_channels": 4, "out_channels": 5}, "out_channels = 5: must be 4 as in_channels"),
    ],
)
def test_a_picture_without_a_shape(config, message):
    with pytest.raises(ValueError, match=message):
        picture_shape(config)


# ---- latents


def test_latents_of_a_mean_and_a_standard_deviation_for_each_channel(tmp_path, rng):
    mean, std = [0.5, -1.0, 2.0, 0.0], [2.0, 0.5, 1.0, 4.0]
    theirs = autoencoder(scaling_factor=0.5, latents_mean=mean, latents_std=std).eval()
    theirs.save_pretrained(tmp_path)
    pictures = torch.rand(3, 3, 8, 8, generator=rng) * 2 - 1
    latents = Autoencoder(tmp_path).latents(pictures)
    mean, std = (torch.tensor(values)[:, None, None] for values in (mean, std))
    with torch.no_grad():
        torch.testing.assert_close(latents, 0.5 * (theirs.encode(pictures).latent_dist.mean - mean) / std)
        expected = theirs.decode(latents * std / 0.5 + mean).sample
    torch.testing.assert_close(Autoencoder(tmp_path)(latents), expected)


# ---- a user's own family: Wan's videos


@pytest.fixture
def wan(tmp_path, monkeypatch):
    """A tiny pipeline of it, saved in a folder, and the module that adds its family."""
    torch.manual_seed(0)
    sizes = {"num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 16, "freq_dim": 8, "num_layers": 1}
    network = diffusers.WanTransformer3DModel(**sizes, in_channels=4, out_channels=4, text_dim=16).eval()
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.2)
    spread = {"latents_mean": [0.5, -1.0, 2.0, 0.0], "latents_std": [2.0, 0.5, 1.0, 4.0]}
    vae = diffusers.AutoencoderKLWan(base_dim=4, z_dim=4, num_res_blocks=1, **spread).eval()
    t5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": 24}
    encoder = transformers.UMT5EncoderModel(transformers.UMT5Config(**t5)).eval()
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    pipeline = diffusers.WanPipeline(t5_tokenizer(512), encoder, vae, scheduler, network)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(tmp_path / "wan")
    monkeypatch.setenv("WAN", str(tmp_path / "wan"))
    before = dict(FAMILIES)
    yield pipeline
    sys.modules.pop("wan", None)  # so that the next test adds it again
    FAMILIES.clear()
    FAMILIES.update(before)


def test_an_unknown_family_is_refused_until_it_is_added(wan, tmp_path):
    for load in (load_teacher, load_encoder):
        with pytest.raises(ValueError, match=r"_class_name = 'Wan\w+': must be "):
            load(str(tmp_path / "wan"))
    importlib.import_module("wan")
    assert load_teacher(str(tmp_path / "wan")).shape == load_teacher("wan:teacher").shape == (4, 2, 8, 8)
    assert load_encoder(str(tmp_path / "wan")).limit == 226


def test_videos_are_its_pipelines_own(wan, tmp_path):
    """From prompts to frames, with guidance: of five dimensions all the way."""
    teacher = load_teacher("wan:teacher")
    assert (teacher.name, teacher.asked.encoder) == ("wan:teacher", str(tmp_path / "wan"))
    assert teacher.denoiser.network.size == (5, 64, 64)
    teacher.check()
    encoder = load_encoder(teacher.asked.encoder)
    assert (encoder.text, encoder.trimmed) == (teacher.text, False)
    z = torch.randn(3, 4, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    their_steps = wan.scheduler.set_timesteps
    wan.scheduler.set_timesteps = lambda n, device: their_steps(sigmas=S, device=device)  # it would begin at infinity
    size = {"height": 64, "width": 64, "num_frames": 5, "output_type": "pt"}
    theirs = wan(PROMPTS, guidance_scale=3.0, latents=z, max_sequence_length=226, **size).frames
    guided = teacher.with_prompts(encoder(PROMPTS), encoder.empty()).prepared(Recipe(teacher_guidance=3.0))
    ours = teacher.decoded(euler(guided, *start(wan.scheduler, z), guided.condition(torch.arange(3))))
    assert ours.shape == (3, 3, 5, 64, 64)
    ours = (ours.transpose(1, 2) / 2 + 0.5).clamp(0, 1)
    assert ((ours > 0) & (ours < 1)).float().mean() > 0.5
    torch.testing.assert_close(ours, theirs.float(), rtol=0, atol=2e-5)


def test_latents_of_videos_are_scaled_by_channel(wan, tmp_path, rng):
    importlib.import_module("wan")
    own = Autoencoder(tmp_path / "wan" / "vae")
    latents = torch.randn(2, 4, 2, 8, 8, generator=rng)
    mean, std = (torch.tensor(wan.vae.config[f"latents_{name}"])[:, None, None, None] for name in ("mean", "std"))
    with torch.no_grad():
        torch.testing.assert_close(own(latents), wan.vae.decode(latents * std + mean).sample)
        videos = torch.rand(2, 3, 5, 64, 64, generator=rng) * 2 - 1
        expected = (wan.vae.encode(videos).latent_dist.mean - mean) / std
    torch.testing.assert_close(own.latents(videos), expected)


def test_a_family_takes_the_place_of_another_of_the_same_network(wan, tmp_path):
    importlib.import_module("wan")
    name = "WanTransformer3DModel"
    FAMILIES[name] = replace(FAMILIES[name], shape=lambda config: (config["in_channels"], 3, 4, 4))
    assert load_teacher(str(tmp_path / "wan")).shape == (4, 3, 4, 4)


# ---- at what cost


def test_the_table_loads_no_diffusers():
    code = "import sys, simdistill.teachers.families; raise SystemExit('diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
