"""Every score against numbers from transformers' own outputs, numpy, or a network written down by hand."""

import numpy as np
import pytest
import torch
from scores_by_hand import clip_picture, clip_prompt, image_reward
from tiny_scores import (
    EDGE,
    PROMPTS,
    WORDS,
    head_state,
    image_reward_state,
    images_of,
    open_clip_state,
    pictures,
    save_clip,
    save_head,
    save_image_reward,
    save_open_clip,
)

from simdistill.evaluation.clip import shown
from simdistill.evaluation.preferences import TITLES, load_scores

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """All five, by the options that name them."""
    root = tmp_path_factory.mktemp("weights")
    return {
        "clip": save_clip(root / "clip"),
        "aesthetic": save_head(root / "linear.pth"),
        "pickscore": save_clip(root / "pick", seed=3),
        "image_reward": save_image_reward(root / "reward"),
        "hpsv2": save_open_clip(root / "hps"),
    }


@pytest.fixture(scope="module")
def scores(weights):
    return {score.name: score for score in load_scores(**weights)}


def outputs(folder):
    """Embeddings of unit length as transformers' whole model returns them, one pair after the other."""
    kind = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)
    processor = kind(size={"shortest_edge": EDGE}, crop_size={"height": EDGE, "width": EDGE})
    model, tokenizer = (
        transformers.CLIPModel.from_pretrained(folder),
        transformers.CLIPTokenizer.from_pretrained(folder),
    )
    pixels = processor(images_of(pictures()), return_tensors="pt").pixel_values
    with torch.no_grad():
        pairs = [
            model(**tokenizer(prompt, return_tensors="pt"), pixel_values=pixels[i : i + 1])
            for i, prompt in enumerate(PROMPTS)
        ]
    seen, read = (np.concatenate([getattr(p, f"{what}_embeds").double() for p in pairs]) for what in ("image", "text"))
    return seen, read, model.logit_scale.exp().item()


def test_clip_score(scores, weights):
    seen, read, _ = outputs(weights["clip"])
    cosines = (seen * read).sum(1)
    assert cosines.min() < 0 < cosines.max()
    assert scores["clip"](pictures(), PROMPTS).numpy() == pytest.approx(100 * np.maximum(cosines, 0), abs=1e-3)


def test_aesthetic_score(scores, weights):
    h, _, _ = outputs(weights["clip"])
    layers = {name: tensor.double().numpy() for name, tensor in head_state(12).items()}
    for k in (0, 2, 4, 6, 7):
        h = h @ layers[f"layers.{k}.weight"].T + layers[f"layers.{k}.bias"]
    found = scores["aesthetic"](pictures(), PROMPTS)
    assert found.std() > 1e-3
    assert found.numpy() == pytest.approx(h[:, 0], rel=1e-4, abs=1e-3)
    assert torch.equal(found, scores["aesthetic"](pictures(), ["other"] * 3))  # it does not read
    assert scores["aesthetic"].weights.startswith("linear-")
    assert scores["aesthetic"].weights.endswith(f" on {scores['clip'].weights}")


def test_pick_score(scores, weights):
    seen, read, scale = outputs(weights["pickscore"])
    assert scores["pickscore"](pictures(), PROMPTS).numpy() == pytest.approx(scale * (seen * read).sum(1), abs=1e-4)


def test_image_reward(scores):
    ids = [torch.tensor([WORDS.index(w) for w in ["[CLS]", *p.split(), "[SEP]"]]) for p in PROMPTS]
    seen = shown(pictures(), 32)
    by_hand = [float(image_reward(image_reward_state(), one, own)) for one, own in zip(seen, ids, strict=True)]
    assert scores["image_reward"](pictures(), PROMPTS).tolist() == pytest.approx(by_hand, rel=1e-4, abs=1e-4)


def test_hpsv2(scores, weights):
    state = open_clip_state()
    tokenizer = transformers.CLIPTokenizer.from_pretrained(weights["hpsv2"].parent)
    seen = [clip_picture(state, one) for one in shown(pictures(), EDGE)]
    read = [clip_prompt(state, torch.tensor(tokenizer(prompt).input_ids)) for prompt in PROMPTS]
    cosines = [float(torch.cosine_similarity(s, r, dim=0)) for s, r in zip(seen, read, strict=True)]
    assert scores["hpsv2"](pictures(), PROMPTS).tolist() == pytest.approx([100 * c for c in cosines], abs=1e-3)


def test_all_are_there_in_the_order_of_their_titles(scores):
    assert list(scores) == list(TITLES)


@pytest.mark.parametrize("name", TITLES)
def test_a_pictures_score_does_not_depend_on_its_company(scores, name):
    many = scores[name](pictures(), PROMPTS)
    alone = torch.cat([scores[name](pictures()[i : i + 1], PROMPTS[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(many, alone, rtol=1e-4, atol=1e-4)


def test_a_picture_for_each_prompt(scores):
    with pytest.raises(ValueError, match="pictures = 3: must be 2, one per prompt"):
        scores["clip"](pictures(), PROMPTS[:2])


def test_weights_that_do_not_do(weights, tmp_path):
    with pytest.raises(ValueError, match=r"scores = 'none': must be .*--clip .*--aesthetic .*--pickscore "):
        load_scores()
    with pytest.raises(ValueError, match=r"--clip = '.*linear.pth': must be a folder of transformers' CLIPModel"):
        load_scores(clip=weights["aesthetic"])
    with pytest.raises(ValueError, match=r"--hpsv2 = '.*clip': must be a file of weights"):
        load_scores(hpsv2=weights["clip"])
    with pytest.raises(ValueError, match=r"--aesthetic = '.*': must be given with --clip"):
        load_scores(aesthetic=weights["aesthetic"])
    wide = save_head(tmp_path / "wide.pth", 768)
    with pytest.raises(
        ValueError, match=r"dimension of the embeddings = 12: must be 768 for .*wide.pth; LAION's predictor"
    ):
        load_scores(clip=weights["clip"], aesthetic=wide)
    with pytest.raises(
        ValueError, match=r"tensors are missing, such as layers.0.bias; .*; must be those of LAION's aesthetic"
    ):
        load_scores(clip=weights["clip"], aesthetic=weights["image_reward"])
