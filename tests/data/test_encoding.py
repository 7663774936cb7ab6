"""Prompts encoded once: as the pipelines themselves encode them, stored, resumed, and what is refused."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from text_encoders import PROMPTS, distill, encoded, pipeline, write
from tiny_models import FLOWS, TINY, S, euler, start

from simdistill.cli import main
from simdistill.config.recipes import Recipe
from simdistill.data.embeddings import Embeddings, part_of
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.pipeline_encoders import PipelineEncoder
from simdistill.workflows import encoding

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize("name", TINY)
def test_from_a_prompt_to_a_picture_as_its_pipeline_does(tmp_path, name):
    """Guided by a scale of 3, with whatever the pipeline takes for no prompt."""
    theirs = pipeline(name, tmp_path)
    encoder = PipelineEncoder(tmp_path)
    text, empty = encoder(PROMPTS), encoder.empty()
    teacher = load_teacher(str(tmp_path))
    assert (encoder.text.width, encoder.text.pooled) == (teacher.text.width, teacher.text.pooled)
    assert encoder.text.tokens == teacher.text.tokens
    z = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    size = {"height": 16, "width": 16, "output_type": "np"}
    steps = {"sigmas": S} if name in FLOWS else {"num_inference_steps": 4}
    if name == "FluxPipeline":
        size |= {"true_cfg_scale": 3.0, "negative_prompt": "", "latents": theirs._pack_latents(z, 3, 4, 8, 8)}
    else:
        size |= {"guidance_scale": 3.0, "latents": z}
        size |= {"use_resolution_binning": False, "clean_caption": False} if name == "PixArtAlphaPipeline" else {}
    images = theirs(PROMPTS, **size, **steps).images
    x, sigmas = start(theirs.scheduler, z)
    guided = teacher.with_prompts(text, empty).prepared(Recipe(teacher_guidance=3.0))
    ours = teacher.decoded(euler(guided, x, sigmas, guided.condition(torch.arange(3))))
    np.testing.assert_allclose((ours / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy(), images, rtol=0, atol=2e-5)


# ---- stored


@pytest.mark.parametrize("name", ["PixArtAlphaPipeline", "StableDiffusionXLPipeline"])
def test_what_is_stored_is_what_was_encoded(tmp_path, monkeypatch, name):
    """With the tokens that fill rows where the network sees them, else as long as the longest; in parts of two."""
    monkeypatch.setattr(encoding, "MOST", 2)
    pipeline(name, tmp_path / "pipeline")
    texts = [*PROMPTS, "person on a blue background", "short hair"]
    done = encoding.encode(tmp_path / write(tmp_path / "p.txt", texts), str(tmp_path / "pipeline"), tmp_path / "out")
    stored, encoder = Embeddings(tmp_path / "out"), PipelineEncoder(tmp_path / "pipeline")
    assert (len(stored), done.prompts, done.cut) == (5, 5, 0)
    assert pl.read_parquet(tmp_path / "out" / "prompts.parquet")["prompt"].to_list() == texts
    rows = torch.tensor([4, 0, 3, 0])
    expected, found = encoder([texts[i] for i in rows]), stored[rows]
    longest = int(expected.attention_mask.sum(1).max())
    assert found.attention_mask.shape[1] == (longest if name.startswith("PixArt") else encoder.text.tokens)
    found, counted = found.filled(encoder.text.tokens), expected.attention_mask[..., None]
    torch.testing.assert_close(
        found.prompt_embeds, (expected.prompt_embeds * counted).half().float(), rtol=0, atol=1e-3
    )
    assert torch.equal(found.attention_mask, expected.attention_mask)
    assert (found.pooled is None) == (expected.pooled is None)
    if found.pooled is not None:
        torch.testing.assert_close(found.pooled, expected.pooled, rtol=0, atol=1e-3)
        assert not stored.empty.prompt_embeds.any()  # SDXL's says so
    else:
        torch.testing.assert_close(
            stored.empty.prompt_embeds[:, :1], encoder([""]).prompt_embeds[:, :1], rtol=0, atol=1e-3
        )
        assert part_of(tmp_path / "out", 0).stat().st_size < 2 * 16 * 120 * 2  # 5 and 8 tokens, not 120 each


def test_a_row_that_there_is_not(pixart, tmp_path):
    encoding.encode(tmp_path / write(tmp_path / "p.txt", PROMPTS), str(pixart), tmp_path / "out")
    with pytest.raises(ValueError, match=r"prompt = 3: must be in 0 … 2"):
        Embeddings(tmp_path / "out")[torch.tensor([3])]


def test_an_interrupted_encoding_goes_on(pixart, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(encoding, "MOST", 1)
    asked = ["encode", write(tmp_path / "p.txt", PROMPTS), "--encoder", str(pixart), "--out", str(tmp_path / "out")]
    calls = []
    whole = PipelineEncoder.__call__

    def counted(self, prompts):
        calls.append(list(prompts))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return whole(self, prompts)

    monkeypatch.setattr(PipelineEncoder, "__call__", counted)
    assert main(asked) == 130
    said = capsys.readouterr().err
    assert re.search(rf"parts .*{tmp_path / 'out'}", said)
    assert [path.name for path in sorted((tmp_path / "out").glob("part*"))] == [
        "part-00000.safetensors",
        "part-00001.safetensors",
    ]
    with pytest.raises(ValueError, match="2 files are missing; repeat `simdistill encode`"):
        Embeddings(tmp_path / "out")
    (tmp_path / "out" / "prompts.parquet").unlink()  # as if it had been stopped before that was written
    before = part_of(tmp_path / "out", 0).stat().st_mtime_ns
    capsys.readouterr()
    assert main([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["prompts"] == 3
    assert part_of(tmp_path / "out", 0).stat().st_mtime_ns == before
    assert len(Embeddings(tmp_path / "out")[torch.arange(3)]) == 3
    assert pl.read_parquet(tmp_path / "out" / "prompts.parquet")["prompt"].to_list() == PROMPTS


@pytest.mark.slow
def test_two_processes_write_the_same_parts(pixart, tmp_path):
    texts = [f"a person with {word}" for word in ["red", "blue", "green", "hair", "hat", "glasses"]]
    prompts = write(tmp_path / "p.txt", texts)
    lines = ["from simdistill.workflows import encoding", "encoding.MOST = 2"]
    code = "\n".join([*lines, "from simdistill.cli import main", "raise SystemExit(main())"])
    (tmp_path / "run.py").write_text(code)
    for count in (1, 2):
        launch = [
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(count),
            str(tmp_path / "run.py"),
        ]
        words = ["encode", prompts, "--encoder", str(pixart), "--out", str(tmp_path / str(count))]
        done = subprocess.run([sys.executable, *launch, *words], capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("6 prompts in") == 1
    one, two = Embeddings(tmp_path / "1"), Embeddings(tmp_path / "2")
    for k in range(3):
        assert part_of(tmp_path / "1", k).read_bytes() == part_of(tmp_path / "2", k).read_bytes()
    assert torch.equal(one.empty.prompt_embeds, two.empty.prompt_embeds)


def test_room_is_stated_first_and_must_be_there(pixart, tmp_path, monkeypatch, capsys):
    asked = ["encode", write(tmp_path / "p.txt", PROMPTS), "--encoder", str(pixart), "--out", str(tmp_path / "out")]
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(encoding.shutil, "disk_usage", lambda _: usage._replace(free=100))
    assert main(asked) == 2
    said = capsys.readouterr().err
    assert (
        "3 distinct prompts, 5.7 tokens of 16 numbers each, in half precision: requires 0.0 MB" in said
    )  # (6 + 9 + 2)/3, ends counted
    assert "free bytes = 100: must be at least 5" in said
    assert not list((tmp_path / "out").glob("part*"))


def test_long_prompts_are_cut_and_counted(pixart, tmp_path, capsys):
    texts = ["hair " * 119, "hair " * 119 + "hat", "red " * 500]  # 120 tokens with the end, 121 and 501
    asked = ["encode", write(tmp_path / "p.txt", texts), "--encoder", str(pixart), "--out", str(tmp_path / "out")]
    assert main(asked) == 0
    assert "warning: 2 of 3 prompts were truncated to 120 tokens" in capsys.readouterr().err
    assert Embeddings(tmp_path / "out")[torch.arange(3)].attention_mask.sum(1).tolist() == [120, 120, 120]


# ---- refused


def named(folder, value):
    """Another text encoder in a pipeline's index."""
    path = folder / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "text_encoder": value}))


class Payload:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_in_a_folder_is_executed(pixart, tmp_path, capsys):
    """A hostile pickle in place of the encoder's weights, and a module that is named as the encoder's library."""
    bad, victim = shutil.copytree(pixart, tmp_path / "bad"), tmp_path / "victim"
    (bad / "text_encoder" / "model.safetensors").unlink()
    torch.save({"shared.weight": Payload(victim)}, bad / "text_encoder" / "pytorch_model.bin")
    asked = ["encode", write(tmp_path / "p.txt", PROMPTS), "--encoder", str(bad), "--out", str(tmp_path / "o")]
    assert main(asked) == 2
    assert "its text encoder cannot be read" in capsys.readouterr().err
    assert not victim.exists()
    (bad / "text_encoder" / "evil.py").write_text(f"from pathlib import Path\nPath({str(victim)!r}).touch()\n")
    named(bad, ["evil", "Encoder"])
    assert main(asked) == 2
    assert "must be of diffusers or transformers" in capsys.readouterr().err
    assert not victim.exists()
    torch.load(bad / "text_encoder" / "pytorch_model.bin", weights_only=False)
    assert victim.exists()  # it would have


def test_other_prompts_do_not_go_into_the_same_folder(pixart, tmp_path, capsys):
    out = encoded(pixart, tmp_path)
    other = write(tmp_path / "other.txt", ["a hat"])
    assert main(["encode", other, "--encoder", str(pixart), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "holds 3 prompts encoded by" in said
    assert ", not these 1; give another folder" in said
    assert "give another folder" in said
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    assert main(["encode", other, "--encoder", str(pixart), "--out", str(tmp_path / "full")]) == 2
    assert "neither empty nor a folder of embeddings" in capsys.readouterr().err


def test_embeddings_of_another_width_are_refused(pixart, tmp_path, capsys):
    out = encoded(pixart, tmp_path)
    about = out / "embeddings.json"
    values = json.loads(about.read_text())
    values["text"]["width"] = 32
    about.write_text(json.dumps(values))
    assert distill(pixart, out, tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert "width of the text = 32: must be 16" in said
    assert f"with --encoder {pixart}" in said


def test_embeddings_by_another_encoder_of_the_same_width_are_refused(pixart, tmp_path, capsys):
    out, other = encoded(pixart, tmp_path), shutil.copytree(pixart, tmp_path / "other")
    weights = other / "text_encoder" / "model.safetensors"
    save_file({name: tensor + 1e-3 for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    assert distill(other, out, tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert f"encoder = '{pixart}': must be the teacher's" in said


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda out: (out / "embeddings.json").unlink(), "must be a folder made by `simdistill encode`"),
        (lambda out: (out / "embeddings.json").write_text("[]"), "embeddings.json is damaged"),
        (lambda out: part_of(out, 0).unlink(), "1 files are missing"),
        (lambda out: part_of(out, 0).write_bytes(b"x" * 50), "damaged"),
    ],
)
def test_damaged_embeddings(pixart, tmp_path, capsys, damage, message):
    out = encoded(pixart, tmp_path)
    damage(out)
    assert distill(pixart, out, tmp_path / "run") == 2
    assert message in capsys.readouterr().err


def test_a_text_teacher_asks_for_prompts_and_others_for_none(pixart, tmp_path, capsys):
    assert distill(pixart, "", tmp_path / "run") == 2
    assert "given for" in capsys.readouterr().err
    assert main(["distill", "digits", "--prompts", str(tmp_path), "--out", str(tmp_path / "run")]) == 2
    assert "left out: 'digits' takes no text" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "model_index.json").unlink(), "cannot be read as a language model with its tokenizer"),
        (
            lambda f: (f / "model_index.json").write_text('{"_class_name": "OsPipeline"}'),
            "'OsPipeline': must be one of",
        ),
        (lambda f: shutil.rmtree(f / "text_encoder"), "its text encoder cannot be read"),
        (
            lambda f: named(f, ["subprocess", "Popen"]),
            "parts = [\"text_encoder of ['subprocess']\"]: must be of diffusers",
        ),
        (lambda f: named(f, [None, None]), "without text_encoder"),
        (lambda f: (f / "text_encoder" / "model.safetensors").write_bytes(b"x"), "its text encoder cannot be read"),
    ],
)
def test_bad_encoders(pixart, tmp_path, capsys, damage, message):
    bad = shutil.copytree(pixart, tmp_path / "bad")
    damage(bad)
    assert (
        main(["encode", write(tmp_path / "p.txt", PROMPTS), "--encoder", str(bad), "--out", str(tmp_path / "o")]) == 2
    )
    assert message in capsys.readouterr().err
