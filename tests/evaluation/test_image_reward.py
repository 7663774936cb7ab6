"""ImageReward against the network written down from its published names."""

import re

import pytest
import torch
from scores_by_hand import image_reward
from tiny_scores import PROMPTS, WORDS, image_reward_state, pictures, save_image_reward

from simdistill.evaluation.clip import shown
from simdistill.evaluation.image_reward import read_image_reward

pytest.importorskip("transformers")


@pytest.fixture
def path(tmp_path):
    return save_image_reward(tmp_path / "reward")


def tokens(prompt):
    """BERT's: words between its two marks."""
    return torch.tensor([WORDS.index(word) for word in ["[CLS]", *prompt.split(), "[SEP]"]])


def test_rewards_are_those_derived_by_hand(path):
    reward, state, found = read_image_reward(path), image_reward_state(), pictures()
    assert re.fullmatch(r"ImageReward-[0-9a-f]{8}", reward.name)
    seen = shown(found, 32)  # 2 × 2 places of 16 pixels
    by_hand = torch.stack([image_reward(state, one, tokens(p)) for one, p in zip(seen, PROMPTS, strict=True)])
    with torch.no_grad():
        rewards = reward(found, PROMPTS)
    assert rewards.std() > 0.01
    torch.testing.assert_close(rewards.double(), by_hand, rtol=1e-4, atol=1e-4)
    other = torch.stack([image_reward(state, one, tokens("hat")) for one in seen])
    assert (other - by_hand).abs().min() > 0.05


def test_prompts_are_cut_to_35_tokens(path):
    reward, found = read_image_reward(path), pictures(2)
    with torch.no_grad():
        long, cut = reward(found[:1].expand(2, -1, -1, -1), ["hat " * 60 + "red", "hat " * 33])
    assert float(long) == pytest.approx(float(cut), rel=1e-4)


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("blip.visual_encoder.patch_embed.proj.weight", "holds no ImageReward, a BLIP and a head"),
        ("blip.text_encoder.embeddings.word_embeddings.weight", "holds no ImageReward"),
        ("blip.visual_encoder.norm.bias", "1 tensor is missing, such as post_layernorm.bias; must be those of BLIP"),
        ("blip.text_encoder.encoder.layer.1.crossattention.self.key.bias", "1 tensor is missing, such as encoder"),
        ("mlp.layers.6.weight", "1 tensor is missing, such as layers.6.weight; must be those of ImageReward"),
    ],
)
def test_other_files_are_refused(path, lost, message):
    state = image_reward_state()
    del state[lost]
    torch.save(state, path)
    with pytest.raises(ValueError, match=message):
        read_image_reward(path)


def test_the_tokenizer_must_be_beside_it(path):
    (path.parent / "vocab.txt").unlink()
    with pytest.raises(ValueError, match=r"its tokenizer = 'missing': must be with vocab.txt, or tokenizer.json"):
        read_image_reward(path)
