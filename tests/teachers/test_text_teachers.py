"""Text-to-image networks in diffusers' folders, against their own pipelines' samples, with and without guidance."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import FLOWS, PIXART, SHORT, TINY, S, autoencoder, euler, start

from simdistill.config.recipes import Recipe
from simdistill.method.text import Text
from simdistill.teachers.diffusers_process import paper_levels
from simdistill.teachers.loading import load_teacher

diffusers = pytest.importorskip("diffusers")


def encoded(n, tiny, tokens=5, seed=1):
    rng = torch.Generator().manual_seed(seed)
    states = torch.randn(n, tokens, 16, generator=rng)
    mask = torch.arange(tokens) < torch.tensor([[3], [5], [1]])[:n]  # prompts of different lengths
    return Text(states, mask, torch.randn(n, tiny.pooled, generator=rng) if tiny.pooled else None)


def saved(name, folder, **settings):
    """The parts of a pipeline in a folder, without a text encoder, and the pipeline."""
    tiny = TINY[name]
    flow = tiny.scheduler.startswith("Flow")
    scheduler = getattr(diffusers, tiny.scheduler)(**({} if flow else SHORT) | settings)
    model, vae = tiny.build(), autoencoder(**({"shift_factor": 0.1} if flow else {}))
    part = "unet" if "UNet" in tiny.model else "transformer"
    model.save_pretrained(folder / part)
    vae.save_pretrained(folder / "vae")
    scheduler.save_pretrained(folder / "scheduler")
    if name == "FluxPipeline":  # its configuration has no size
        config = folder / part / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "sample_size": 8}))
    nothing = dict.fromkeys(("tokenizer", "text_encoder"))
    if name == "StableDiffusionPipeline":
        nothing |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    elif name != "PixArtAlphaPipeline":
        nothing |= dict.fromkeys(("tokenizer_2", "text_encoder_2"))
    if name == "StableDiffusion3Pipeline":
        nothing |= dict.fromkeys(("tokenizer_3", "text_encoder_3"))
    pipeline = getattr(diffusers, name)(**{part: model}, vae=vae, scheduler=scheduler, **nothing)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def arguments(name, text, null, scale):
    """What its pipeline is called with, for already encoded prompts."""
    sent = {"prompt_embeds": text.prompt_embeds, "guidance_scale": scale, "height": 16, "width": 16}
    if name == "PixArtAlphaPipeline":
        sent |= {
            "prompt_attention_mask": text.attention_mask.long(),
            "negative_prompt_attention_mask": null.attention_mask.long(),
        }
        sent |= {"use_resolution_binning": False, "negative_prompt": None}
    sent |= {"negative_prompt_embeds": null.prompt_embeds}
    if name == "FluxPipeline":  # where guidance_scale is an input of its network
        sent |= {"true_cfg_scale": sent.pop("guidance_scale")}
    if text.pooled is not None:
        sent |= {"pooled_prompt_embeds": text.pooled, "negative_pooled_prompt_embeds": null.pooled}
    return sent


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("name", TINY)
def test_samples_are_its_pipelines_own(tmp_path, name, scale, rng):
    pipeline, tiny = saved(name, tmp_path), TINY[name]
    teacher = load_teacher(str(tmp_path))
    assert teacher.shape == (4, 8, 8)
    assert (teacher.text.width, teacher.text.pooled, teacher.classes) == (16, tiny.pooled, 0)
    text, null = encoded(3, tiny), encoded(1, tiny, seed=2)
    z = torch.randn(3, 4, 8, 8, generator=rng)
    sent = arguments(name, text, null[torch.zeros(3, dtype=torch.int64)], scale)
    latents = pipeline._pack_latents(z, 3, 4, 8, 8) if name == "FluxPipeline" else z
    steps = {"sigmas": S} if name in FLOWS else {"num_inference_steps": 4}
    theirs = pipeline(**sent, **steps, latents=latents, output_type="np").images
    x, sigmas = start(pipeline.scheduler, z)
    guided = teacher.with_prompts(text, null).prepared(Recipe(teacher_guidance=scale))
    ours = teacher.decoded(euler(guided, x, sigmas, text))
    ours = (ours / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert ((ours > 0) & (ours < 1)).mean() > 0.5
    assert abs(ours - theirs).max() < 2e-5
    other = teacher.decoded(euler(guided, x, sigmas, encoded(3, tiny, seed=3)))
    assert (other / 2 + 0.5 - torch.from_numpy(ours).permute(0, 3, 1, 2)).abs().max() > 1e-3


# ---- what else their configurations say


def changed(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_pixart_by_its_former_name(tmp_path):
    """As the published folders have it; they also hold a weight that is no part of the network."""
    saved("PixArtAlphaPipeline", tmp_path)
    new = load_teacher(str(tmp_path))
    (weights,) = (tmp_path / "transformer").glob("*.safetensors")
    save_file(load_file(weights) | {"caption_projection.y_embedding": torch.ones(120, 16)}, weights, {"format": "pt"})
    changed(tmp_path / "transformer", _class_name="Transformer2DModel", num_vector_embeds=None)
    old = load_teacher(str(tmp_path))
    x, sigma, text = torch.ones(3, 4, 8, 8), torch.full((3,), 0.4), encoded(3, TINY["PixArtAlphaPipeline"])
    assert torch.equal(old.denoiser(x, sigma, text), new.denoiser(x, sigma, text))


def test_tokens_that_only_fill_a_row_are_not_seen_by_pixart_and_are_by_a_unet(tmp_path):
    for name, seen in (("PixArtAlphaPipeline", False), ("StableDiffusionPipeline", True)):
        saved(name, tmp_path / name)
        teacher, text = load_teacher(str(tmp_path / name)), encoded(3, TINY[name])
        other = Text(torch.where(text.attention_mask[..., None], text.prompt_embeds, 9.0), text.attention_mask)
        x, sigma = torch.ones(3, 4, 8, 8), torch.full((3,), 0.4)
        difference = (teacher.denoiser(x, sigma, text) - teacher.denoiser(x, sigma, other)).abs().max()
        assert (difference > 1e-4) == seen, name


def test_a_network_for_1024_pixels_is_told_the_size_in_pixels(tmp_path):
    """Of a picture, twice its latents' here."""
    wide = {"num_attention_heads": 3, "cross_attention_dim": 24, "use_additional_conditions": True}  # thirds of it
    model = diffusers.PixArtTransformer2DModel(**PIXART | wide).eval()
    pipeline = saved("PixArtAlphaPipeline", tmp_path)
    model.save_pretrained(tmp_path / "transformer")
    pipeline.scheduler.save_pretrained(tmp_path / "scheduler")
    teacher, text = load_teacher(str(tmp_path)), encoded(3, TINY["PixArtAlphaPipeline"])
    told = {"resolution": torch.full((3, 2), 16.0), "aspect_ratio": torch.ones(3, 1)}
    x, sigma = torch.ones(3, 4, 8, 8), torch.full((3,), teacher.sigma_max)
    state, time = x / (1 + teacher.sigma_max**2) ** 0.5, torch.full((3,), 19)
    expected = model(
        state, text.prompt_embeds, time, told, encoder_attention_mask=text.attention_mask.long(), return_dict=False
    )[0]
    torch.testing.assert_close(teacher.denoiser(x, sigma, text), (x - teacher.sigma_max * expected[:, :4]).detach())


def test_flux_dev_is_told_its_pipelines_default_guidance(tmp_path):
    """Guidance there is an input of the network."""
    saved("FluxPipeline", tmp_path)
    tiny = TINY["FluxPipeline"]
    torch.manual_seed(0)
    model = diffusers.FluxTransformer2DModel(**tiny.arguments, guidance_embeds=True).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    model.save_pretrained(tmp_path / "transformer")
    changed(tmp_path / "transformer", sample_size=8)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(tmp_path / "scheduler")
    parts = dict.fromkeys(("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2"))
    pipeline = diffusers.FluxPipeline(scheduler, autoencoder(shift_factor=0.1), transformer=model, **parts)
    teacher, text = load_teacher(str(tmp_path)), encoded(3, tiny)
    z = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    sent = {"prompt_embeds": text.prompt_embeds, "pooled_prompt_embeds": text.pooled, "height": 16, "width": 16}
    packed = pipeline._pack_latents(z, 3, 4, 8, 8)
    theirs = pipeline(**sent, sigmas=S, latents=packed, output_type="np").images
    ours = teacher.decoded(euler(teacher, *start(pipeline.scheduler, z), text))
    assert ((ours / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1) - torch.from_numpy(theirs)).abs().max() < 2e-5


def test_a_flow_wants_a_flows_scheduler(tmp_path):
    saved("StableDiffusion3Pipeline", tmp_path)
    diffusers.DDIMScheduler().save_pretrained(tmp_path / "scheduler")
    with pytest.raises(ValueError, match="_class_name = 'DDIMScheduler': must be one of FlowMatchEuler"):
        load_teacher(str(tmp_path))


# ---- the paper's table of levels [B.13]


def test_the_papers_levels_by_their_recursion():
    """u_1000 = 0, u_{j-1} = √((u_j² + 1)/max(1 - beta_j, C_1) - 1), step by step."""
    u = [0.0]
    for j in range(1000, 0, -1):
        u.append(((u[-1] ** 2 + 1) / max(1 - (0.02 - 0.0199 * j / 1000), 0.001) - 1) ** 0.5)
    torch.testing.assert_close(paper_levels(), torch.tensor(u[1:], dtype=torch.float64), rtol=1e-9, atol=0)
    assert paper_levels()[-1].item() == pytest.approx(156.6155, abs=5e-5)  # the range that the paper states …
    assert paper_levels()[0].item() == pytest.approx(0.01, abs=1e-6)
    assert (paper_levels() - 2.5).abs().argmin().item() == 440  # … and where its generator calls the network [B.14]


def test_a_teacher_with_the_papers_levels(tmp_path):
    saved("PixArtAlphaPipeline", tmp_path, num_train_timesteps=1000)
    own, papers = load_teacher(str(tmp_path)), load_teacher(str(tmp_path), "paper")
    assert own.sigma_max == pytest.approx(157.407, rel=1e-5)
    assert (papers.sigma_min, papers.sigma_max) == pytest.approx((0.01, 156.6155), rel=1e-4)
    x, text = torch.ones(3, 4, 8, 8), encoded(3, TINY["PixArtAlphaPipeline"])
    sigma = torch.full((3,), 2.5)
    model = papers.denoiser.network.model
    added = {"resolution": None, "aspect_ratio": None}
    state, time = x / (1 + 2.5**2) ** 0.5, torch.full((3,), 440)
    f = model(
        state, text.prompt_embeds, time, added, encoder_attention_mask=text.attention_mask.long(), return_dict=False
    )[0]
    torch.testing.assert_close(papers.denoiser(x, sigma, text), x - 2.5 * f[:, :4])


@pytest.mark.parametrize("name", ["PixArtAlphaPipeline", "FluxPipeline"])
def test_other_processes_have_no_levels_of_the_papers(tmp_path, name):
    """20 times, and a flow."""
    saved(name, tmp_path)
    with pytest.raises(ValueError, match="teacher-levels"):
        load_teacher(str(tmp_path), "paper")
