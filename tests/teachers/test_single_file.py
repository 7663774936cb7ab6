"""Checkpoints of Stable Diffusion in one file, read by the configuration beside them."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from single_files import write_single_file
from text_encoders import PROMPTS, clip, distill, encoded, pipeline

from simdistill.cli import main
from simdistill.teachers.encoders import digest_of, load_encoder
from simdistill.teachers.loading import load_teacher

diffusers = pytest.importorskip("diffusers")
SD, XL = "StableDiffusionPipeline", "StableDiffusionXLPipeline"


@pytest.fixture(scope="module", params=[SD, XL])
def pair(request, tmp_path_factory):
    """A tiny pipeline's folder, and its checkpoint of one file beside a folder with its configuration alone."""
    root = tmp_path_factory.mktemp(request.param)
    whole = pipeline(request.param, root / "whole")
    if request.param == XL:  # encoders of different widths, by which diffusers tells them apart
        parts = {"text_encoder": clip(6), "text_encoder_2": clip(10, "CLIPTextModelWithProjection")}
        whole = getattr(diffusers, request.param)(**whole.components | parts)
        whole.save_pretrained(root / "whole")
    path = write_single_file(root / "mixed v1.safetensors", whole)
    configured(root / "whole", path)
    return root / "whole", path


def configured(whole, path):
    """The folder of a pipeline without its weights, beside a checkpoint."""
    left_out = shutil.ignore_patterns("*.safetensors", "*.bin")
    return shutil.copytree(whole, path.with_suffix(""), ignore=left_out)


def test_the_network_is_the_folders(pair, rng):
    whole, path = pair
    ours, theirs = load_teacher(str(path)), load_teacher(str(whole))
    assert ours.name == ours.asked.encoder == str(path)
    assert (ours.shape, ours.text, ours.sigma_min, ours.sigma_max) == (
        theirs.shape,
        theirs.text,
        theirs.sigma_min,
        theirs.sigma_max,
    )
    x, sigma = torch.randn(2, 4, 8, 8, generator=rng), torch.tensor([0.1, 0.4])
    text = ours.text.blank(2)
    text.prompt_embeds.normal_(generator=rng)
    assert torch.equal(ours.denoiser(x, sigma, text), theirs.denoiser(x, sigma, text))
    assert not ours.denoiser.network.model.training
    assert not any(p.requires_grad for p in ours.denoiser.parameters())
    assert torch.equal(ours.decoded(x), theirs.decoded(x))


def test_its_text_encoders_are_the_folders(pair):
    whole, path = pair
    ours, theirs = load_encoder(str(path)), load_encoder(str(whole))
    assert ours.text == theirs.text
    for mine, other in ((ours(PROMPTS), theirs(PROMPTS)), (ours.empty(), theirs.empty())):
        torch.testing.assert_close(mine.prompt_embeds, other.prompt_embeds)
        if other.pooled is not None:
            torch.testing.assert_close(mine.pooled, other.pooled)
    assert digest_of(str(path)) not in (None, digest_of(str(whole)))


def test_a_student_finds_its_file_again(pair, tmp_path, capsys):
    _, path = pair
    prompts = encoded(path, tmp_path)
    assert distill(path, prompts, tmp_path / "run", "--evaluation-samples", "0", "--milestones", "0") == 0
    out = str(tmp_path / "s.npy")
    capsys.readouterr()
    assert main(["sample", str(tmp_path / "run"), "--seeds", "0-1", "--prompt", "red hair", "--out", out]) == 0, (
        capsys.readouterr().err
    )


def damaged(pair, tmp_path, change):
    """A copy of the pair's file and configuration, changed."""
    whole, path = pair
    copied = tmp_path / "other.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, copied)
    return copied, configured(whole, copied)


def test_files_that_do_not_fit_their_configuration(pair, tmp_path):
    def take(tensors):
        del tensors["model.diffusion_model.time_embed.0.bias"]

    path, folder = damaged(pair, tmp_path, take)
    with pytest.raises(ValueError, match="put its own configuration there") as refused:
        load_teacher(str(path))
    assert str(path) in str(refused.value)
    assert str(folder / "unet" / "config.json") in str(refused.value)

    def add(tensors):
        tensors["model.diffusion_model.input_blocks.9.0.odd"] = torch.ones(3)

    shutil.rmtree(folder)
    path, folder = damaged(pair, tmp_path, add)
    with pytest.raises(ValueError, match="put its own configuration there"):
        load_teacher(str(path))


def test_a_file_without_autoencoder_and_text_takes_the_folders(pair, tmp_path):
    """As diffusion models alone are passed around."""

    def network_alone(tensors):
        for name in [*tensors]:
            if not name.startswith("model.diffusion_model."):
                del tensors[name]

    path, folder = damaged(pair, tmp_path, network_alone)
    shutil.rmtree(folder)
    shutil.copytree(pair[0], folder)
    teacher, whole = load_teacher(str(path)), load_teacher(str(pair[0]))
    assert teacher.asked.encoder == str(folder)
    z = torch.zeros(1, 4, 8, 8)
    assert torch.equal(teacher.decoded(z), whole.decoded(z))


def test_half_precision_is_read_as_float32(pair, tmp_path):
    def halve(tensors):
        tensors |= {name: tensor.half() for name, tensor in tensors.items()}

    path, _ = damaged(pair, tmp_path, halve)
    ours, theirs = (load_teacher(str(place)).denoiser.state_dict() for place in (path, pair[0]))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name].half().float())


def test_a_damaged_file_is_one_line(pair, tmp_path):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(pair[1].read_bytes()[:5000])
    configured(pair[0], path)
    with pytest.raises(ValueError, match=r"broken\.safetensors: not a valid safetensors file"):
        load_teacher(str(path))


def test_without_a_configuration_the_line_says_both_ways(pair, tmp_path):
    path = shutil.copy(pair[1], tmp_path)
    with pytest.raises(ValueError, match=r"put the configuration of its diffusers folder .* or convert it once"):
        load_teacher(path)
    (tmp_path / "model_index.json").write_text(json.dumps({}))  # now the file lies in the folder
    with pytest.raises(ValueError, match=r"no unet/config\.json"):
        load_teacher(path)
