"""CLIP from transformers' folders: what it is shown, what it makes of it, and folders that it refuses."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_scores import EDGE, PROMPTS, images_of, pictures, save_clip

from simdistill.evaluation.clip import read_clip, shown

transformers = pytest.importorskip("transformers")
PillowProcessor = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("clips") / "clip-tiny")


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def processed(pictures, edge):
    processor = PillowProcessor(size={"shortest_edge": edge}, crop_size={"height": edge, "width": edge})
    return processor(images_of(pictures), return_tensors="pt").pixel_values


@pytest.mark.parametrize(("height", "width"), [(40, 52), (64, 32), (28, 28), (20, 24)])
def test_pictures_are_shown_as_transformers_shows_them(height, width):
    found = pictures(2, height, width)
    torch.testing.assert_close(shown(found, EDGE), processed(found, EDGE), rtol=0, atol=1e-5)


def test_grey_is_shown_in_three_channels():
    grey = pictures(2, channels=1)
    torch.testing.assert_close(shown(grey, EDGE), shown(grey.expand(-1, 3, -1, -1), EDGE), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"samples of shape = \[4, 8, 8\]: must be images of 1 or 3 channels"):
        shown(torch.zeros(1, 4, 8, 8), EDGE)


def test_cosines_are_those_of_transformers(folder):
    clip = read_clip(folder)
    model, found = transformers.CLIPModel.from_pretrained(folder).eval(), pictures()
    one_by_one = [clip.tokenizer([prompt], return_tensors="pt") for prompt in PROMPTS]
    with torch.no_grad():
        scaled = [
            model(**tokens, pixel_values=processed(found[i : i + 1], EDGE)).logits_per_image[0, 0]
            for i, tokens in enumerate(one_by_one)
        ]
        cosines = clip.cosines(found, PROMPTS)
    assert clip.scale == pytest.approx(model.logit_scale.exp().item())
    assert cosines.std() > 0.01
    torch.testing.assert_close(clip.scale * cosines, torch.stack(scaled), rtol=0, atol=1e-5)


def test_prompts_are_cut_to_what_the_network_takes(folder):
    clip = read_clip(folder)
    with torch.no_grad():
        torch.testing.assert_close(clip.prompts(["h " * 75]), clip.prompts(["h " * 300]), rtol=0, atol=1e-6)


def test_the_name_says_from_what_weights(folder, copy):
    name = read_clip(folder).name
    assert name.startswith("clip-tiny-")
    weights = load_file(copy / "model.safetensors")
    save_file(weights, copy / "model.safetensors", {"format": "pt", "other": "bytes"})
    assert read_clip(copy).name.removeprefix("copy-") != name.removeprefix("clip-tiny-")


def test_half_precision_and_old_positions_are_taken(folder, copy):
    weights = {name: tensor.half() for name, tensor in load_file(copy / "model.safetensors").items()}
    weights["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with torch.no_grad():
        found, expected = read_clip(copy).pictures(pictures()), read_clip(folder).pictures(pictures())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-3)


def without(name):
    return lambda state: state.pop(name)


def strange(state):
    state["text_model.encoder.layers.3.layer_norm1.bias"] = torch.zeros(8)


def narrow(state):
    state["visual_projection.weight"] = torch.zeros(5, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("visual_projection.weight"), r"weights = \['visual_projection.weight missing'\]: must be exactly"),
        (strange, r"weights = \['text_model.encoder.layers.3.layer_norm1.bias unknown'\]"),
        (narrow, "cannot be read as a CLIPModel"),
    ],
)
def test_other_weights_are_refused(copy, change, message):
    state = load_file(copy / "model.safetensors")
    change(state)
    save_file(state, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=message):
        read_clip(copy)


def test_other_folders_are_refused(copy, tmp_path):
    with pytest.raises(ValueError, match=r"config.json: cannot be read"):
        read_clip(tmp_path)
    (copy / "tokenizer.json").rename(copy / "elsewhere.json")
    with pytest.raises(ValueError, match=r"its tokenizer = 'missing': must be with vocab.json and merges.txt"):
        read_clip(copy)
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="its tokenizer cannot be read"):
        read_clip(copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"model_type": "siglip"}))
    with pytest.raises(ValueError, match="model_type = 'siglip': must be clip"):
        read_clip(copy)


def test_a_tokenizer_of_more_words_is_refused(copy):
    vocabulary = json.loads((copy / "tokenizer.json").read_text())
    words = vocabulary["model"]["vocab"]
    vocabulary["model"]["vocab"] = words | {"further": len(words)}
    (copy / "tokenizer.json").write_text(json.dumps(vocabulary))
    with pytest.raises(ValueError, match="words of its tokenizer = 55: must be at most 54"):
        read_clip(copy)
