"""open_clip's names, as HPSv2 is published, against the network written down from these names."""

import re

import pytest
import torch
from scores_by_hand import clip_picture, clip_prompt
from tiny_scores import EDGE, PROMPTS, clip_config, open_clip_state, pictures, save_open_clip

from simdistill.evaluation.clip import shown
from simdistill.evaluation.open_clip import read_open_clip, renamed

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save_open_clip(tmp_path_factory.mktemp("hpsv2"))


def test_embeddings_are_those_derived_by_hand(path):
    clip, state, found = read_open_clip(path), open_clip_state(), pictures()
    assert re.fullmatch(r"HPS_v2\.1_compressed-[0-9a-f]{8}", clip.name)
    assert clip.scale == pytest.approx(float(state["logit_scale"].exp()))
    by_hand = torch.stack([clip_picture(state, one) for one in shown(found, EDGE)])
    with torch.no_grad():
        seen, read = clip.pictures(found), clip.prompts(PROMPTS)
    assert seen.std(0).max() > 5e-3
    torch.testing.assert_close(seen.double(), torch.nn.functional.normalize(by_hand), rtol=0, atol=1e-5)
    ids = [torch.tensor(clip.tokenizer(prompt).input_ids) for prompt in PROMPTS]
    by_hand = torch.stack([clip_prompt(state, one) for one in ids])
    torch.testing.assert_close(read.double(), torch.nn.functional.normalize(by_hand), rtol=0, atol=1e-5)


def test_every_tensor_of_the_published_network_has_its_place():
    """ViT-H/14 with a text encoder of 24 layers: HPSv2's, and PickScore's."""
    text = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    vision = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision | {"patch_size": 14}, projection_dim=1024)
    with torch.device("meta"):
        network = transformers.CLIPModel(config)
    assert set(renamed(open_clip_state())) <= set(network.state_dict())
    assert sum(p.numel() for p in network.parameters()) == 986_109_441  # as open_clip gives it for ViT-H-14


@pytest.mark.parametrize(
    ("layers", "message"),
    [(2, "16 tensors are missing, such as text_model.encoder"), (4, "16 tensors are unknown, such as text_model")],
)
def test_another_depth_is_refused(path, tmp_path, layers, message):
    other = save_open_clip(tmp_path)
    torch.save({"state_dict": open_clip_state(layers)}, other)
    with pytest.raises(ValueError, match=message):
        read_open_clip(other)


def test_other_files_are_refused(tmp_path):
    path = save_open_clip(tmp_path)
    torch.save({"state_dict": open_clip_state() | {"attn_mask": torch.zeros(77, 77)}}, path)
    with pytest.raises(ValueError, match="1 tensor is unknown, such as attn_mask; must be those of the CLIP"):
        read_open_clip(path)
    clip_config(width=8).save_pretrained(tmp_path)
    torch.save(open_clip_state(), path)
    with pytest.raises(ValueError, match=r"_projection.weight = \[12, \d+\]: must be \[8, \d+\]"):
        read_open_clip(path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config.json: cannot be read"):
        read_open_clip(path)


def test_a_joint_projection_that_is_not_three():
    with pytest.raises(ValueError, match=r"rows of transformer.resblocks.0.attn.in_proj_bias = 8: must be three times"):
        renamed({"transformer.resblocks.0.attn.in_proj_bias": torch.zeros(8)})
