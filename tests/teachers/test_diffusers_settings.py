"""Settings of diffusers' networks and autoencoders that cannot be: one line with file, setting and value."""

import inspect
import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_models import TINY, autoencoder, dit, scheduler, unet

from simdistill.teachers.autoencoders import Autoencoder
from simdistill.teachers.diffusers_process import SCHEDULERS, scheduled
from simdistill.teachers.diffusers_settings import check_settings
from simdistill.teachers.families import FAMILIES, autoencoders
from simdistill.teachers.loading import load_teacher

diffusers = pytest.importorskip("diffusers")


def rewrite(path, changes):
    """Change settings in a JSON file; those of None are taken out."""
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny pipeline's folder of each family, with its autoencoder."""
    root = tmp_path_factory.mktemp("folders")
    networks = {name: tiny.build() for name, tiny in TINY.items()} | {"unet": unet(), "dit": dit()}
    for name, network in networks.items():
        network.save_pretrained(root / name / FAMILIES[type(network).__name__].part)
        kind = getattr(diffusers, TINY[name].scheduler) if name in TINY else type(scheduler())
        kind().save_pretrained(root / name / "scheduler")
        channels = {"unet": 3}.get(name, 4)
        autoencoder(latent_channels=channels).save_pretrained(root / name / "vae")
    return root


SD, XL, SD3, FLUX, PIXART = (
    f"{name}Pipeline" for name in ("StableDiffusion", "StableDiffusionXL", "StableDiffusion3", "Flux", "PixArtAlpha")
)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        (SD, {"cross_attention_dim": "x"}, "cross_attention_dim = 'x': must be int | tuple[int]"),
        (SD, {"cross_attention_dim": [[16]]}, "cross_attention_dim = [[16]]: must be int"),
        (SD, {"cross_attention_dim": [16, 8]}, "cross_attention_dim = [16, 8]: must be one number, or the same"),
        (SD, {"cross_attention_dim": []}, "cross_attention_dim = []: must be one number"),
        (SD, {"cross_attention_dim": {"a": 1}}, "cross_attention_dim = {'a': 1}: must be int"),
        (SD, {"cross_attention_dim": 0}, "cross_attention_dim = 0: must be the width"),
        (SD, {"in_channels": "4"}, "in_channels = '4': must be int"),
        (SD, {"layers_per_block": -1}, "layers_per_block = -1: must be int | tuple[int], none negative"),
        (SD, {"layers_per_block": 10**6}, "layers_per_block = 1000000: must be at most 1,000"),
        (SD, {"norm_eps": "1e-5"}, "norm_eps = '1e-5': must be float"),
        (SD, {"freq_shift": [1]}, "freq_shift = [1]: must be int"),
        (SD, {"act_fn": 3}, "act_fn = 3: must be str"),
        (SD, {"act_fn": "nosuch"}, "cannot be read as a UNet2DConditionModel (ValueError"),
        (SD, {"norm_num_groups": 3}, "cannot be read as a UNet2DConditionModel"),
        (SD, {"num_class_embeds": 10}, "num_class_embeds = 10: must be absent: networks that take class labels"),
        (SD, {"encoder_hid_dim": 16}, "encoder_hid_dim = 16: must be absent: networks that take other embeddings"),
        (SD, {"dual_cross_attention": True}, "dual_cross_attention = True: must be absent"),
        (SD, {"time_cond_proj_dim": 8}, "time_cond_proj_dim = 8: must be absent: networks with guidance embedded"),
        (SD, {"addition_embed_type": "text_time"}, "projection_class_embeddings_input_dim = None: must be given with"),
        (XL, {"addition_time_embed_dim": None}, "addition_time_embed_dim = None: must be given with"),
        (XL, {"addition_time_embed_dim": 10}, "projection_class_embeddings_input_dim = 60: must be above 6"),
        (SD3, {"joint_attention_dim": None}, "joint_attention_dim = None: must be the width"),
        (SD3, {"pooled_projection_dim": "12"}, "pooled_projection_dim = '12': must be int"),
        (FLUX, {"num_layers": 10**9}, "num_layers = 1000000000: must be at most 1,000"),
        (FLUX, {"guidance_embeds": {}}, "guidance_embeds = {}: must be bool"),
        (PIXART, {"caption_channels": [16]}, "caption_channels = [16]: must be int | None"),
        (PIXART, {"caption_channels": None}, "caption_channels = None: must be the width"),
        (PIXART, {"patch_size": 0}, "cannot be read as a PixArtTransformer2DModel (ZeroDivisionError"),
        ("unet", {"block_out_channels": "8"}, "block_out_channels = '8': must be tuple[int, ...]"),
        ("unet", {"num_class_embeds": "5"}, "num_class_embeds = '5': must be int | None"),
        ("unet", {"sample_size": [8, 0]}, "sample_size = [8, 0]: must be the height and width"),
        ("dit", {"num_embeds_ada_norm": [10]}, "num_embeds_ada_norm = [10]: must be int"),
        ("dit", {"num_attention_heads": -2}, "num_attention_heads = -2: must be int"),
    ],
)  # fmt: skip
def test_impossible_settings_of_networks(folders, tmp_path, name, changes, said):
    folder = shutil.copytree(folders / name, tmp_path / "odd")
    (path,) = [*folder.glob("unet/config.json"), *folder.glob("transformer/config.json")]
    rewrite(path, changes)
    with pytest.raises(ValueError, match=r"download|must be") as refused:
        load_teacher(str(folder))
    message = str(refused.value)
    assert message.startswith(f"{path}: ")
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("DDIMScheduler", {"num_train_timesteps": "1000"}, "num_train_timesteps = '1000': must be int"),
        ("DDIMScheduler", {"num_train_timesteps": 10**9}, "num_train_timesteps = 1000000000: must be a whole"),
        ("DDIMScheduler", {"num_train_timesteps": 0}, "num_train_timesteps = 0: must be a whole number from 1"),
        ("DDIMScheduler", {"beta_start": "0.1"}, "beta_start = '0.1': must be float"),
        ("DDIMScheduler", {"beta_end": [0.1]}, "beta_end = [0.1]: must be float"),
        ("DDIMScheduler", {"trained_betas": 0.5}, "betas = [0.5]: must be between 0 and 1"),
        ("DDIMScheduler", {"prediction_type": 3}, "prediction_type = 3: must be Literal['epsilon'"),
        ("EDMEulerScheduler", {"sigma_data": "0.5"}, "sigma_data = '0.5': must be float"),
        ("EDMEulerScheduler", {"sigma_max": {}}, "sigma_max = {}: must be float"),
        ("FlowMatchEulerDiscreteScheduler", {"shift": "3"}, "shift = '3': must be float"),
        ("FlowMatchEulerDiscreteScheduler", {"num_train_timesteps": 1.5}, "num_train_timesteps = 1.5: must be a whole"),
    ],
)  # fmt: skip
def test_impossible_settings_of_schedulers(tmp_path, kind, changes, said):
    getattr(diffusers, kind)().save_pretrained(tmp_path)
    path = tmp_path / "scheduler_config.json"
    scheduled(path)
    rewrite(path, changes)
    with pytest.raises(ValueError, match="must be") as refused:
        scheduled(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert said in str(refused.value)


@pytest.mark.parametrize("name", [SD, FLUX, "unet", "dit"])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"latent_channels": 16}, "channels of its latents = 16: must be {channels}, as the network's samples have"),
        ({"latent_channels": "4"}, "latent_channels = '4': must be int"),
        ({"block_out_channels": "x"}, "block_out_channels = 'x': must be tuple"),
        ({"scaling_factor": "0.18"}, "scaling_factor = '0.18': must be a number, not 0"),
        ({"scaling_factor": 0}, "scaling_factor = 0: must be a number, not 0"),
        ({"shift_factor": [0.1]}, "shift_factor = [0.1]: must be a number"),
        ({"latents_mean": [0.0]}, "latents_mean = [0.0]: must be {channels} numbers, one for each channel"),
        ({"latents_std": [1.0] * 5}, "must be {channels} numbers, one for each channel"),
        ({"latents_std": [1.0, 0.0, 1.0]}, "latents_std = [1.0, 0.0, 1.0]: must be {channels} numbers"),
        ({"latents_mean": 0.5}, "latents_mean = 0.5: must be {channels} numbers"),
    ],
)  # fmt: skip
def test_autoencoders_that_do_not_fit(folders, tmp_path, name, changes, said):
    """What would fail, or decode to noise, only at the first picture."""
    folder = shutil.copytree(folders / name, tmp_path / "odd")
    assert load_teacher(str(folder)).judged.decode is not None
    rewrite(folder / "vae" / "config.json", changes)
    with pytest.raises(ValueError, match=r"vae/config\.json: ") as refused:
        load_teacher(str(folder))
    assert said.format(channels={"unet": 3}.get(name, 4)) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_autoencoder_alone_has_a_scaling_of_its_channels(folders, tmp_path):
    folder = shutil.copytree(folders / "dit" / "vae", tmp_path / "vae")
    rewrite(folder / "config.json", {"latents_mean": [0.0] * 3})
    with pytest.raises(ValueError, match=r"latents_mean = .*must be 4 numbers"):
        Autoencoder(folder)


MODELS = sorted(
    name
    for name in {*FAMILIES, *autoencoders(), "AutoencoderDC", "AutoencoderKLWan", "SanaTransformer2DModel", *SCHEDULERS}
)


@pytest.mark.parametrize("name", MODELS)
def test_the_classes_own_defaults_fit(name):
    """Each by itself, changed within its type, so that no published configuration is refused for its types."""
    known = inspect.signature(getattr(diffusers, name).__init__).parameters.values()
    defaults = {one.name: one.default for one in known if one.default is not one.empty}
    check_settings(defaults, name, Path("config.json"))
    for key, value in defaults.items():
        if type(value) in (int, float):
            check_settings({key: value + 1}, name, Path("config.json"))
        elif isinstance(value, tuple):
            check_settings({key: [*value, *value[:1]]}, name, Path("config.json"))
        elif isinstance(value, bool):
            for other in (None, not value, 0):
                check_settings({key: other}, name, Path("config.json"))


PUBLISHED = [  # as in their config.json files
    ("UNet2DConditionModel", {"attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "act_fn": "silu"}),
    ("UNet2DConditionModel", {"transformer_layers_per_block": [1, 2, 10], "upcast_attention": None}),
    ("UNet2DConditionModel", {"reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1]}),
    ("UNet2DConditionModel", {"only_cross_attention": [True, True, False], "mid_block_type": None}),
    ("DiTTransformer2DModel", {"activation_fn": "gelu-approximate", "norm_eps": 1e-05, "sample_size": 32}),
    ("SD3Transformer2DModel", {"dual_attention_layers": [0, 1, 12], "qk_norm": "rms_norm", "pos_embed_max_size": 384}),
    ("FluxTransformer2DModel", {"axes_dims_rope": [16, 56, 56], "out_channels": None, "guidance_embeds": True}),
    ("AutoencoderKL", {"latents_mean": [-1.6574, 1.886], "latents_std": [8.4927, 5.9022], "force_upcast": True}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings"), PUBLISHED)
def test_published_settings_fit(name, settings):
    check_settings(settings, name, Path("config.json"))


def test_what_a_network_makes_stays_the_same(folders):
    """The check takes nothing away: each tiny folder is read, and a step of its denoiser is finite."""
    for folder in sorted(folders.iterdir()):
        teacher = load_teacher(str(folder))
        if teacher.shape[-1] < 100:  # FLUX's samples are large
            teacher.check()
            assert torch.isfinite(teacher.decoded(torch.zeros(1, *teacher.shape))).all()
