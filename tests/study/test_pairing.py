"""Pairs for a study: models draw from the same seeds what `sample` and Heun's sampler draw; folders by their names."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from simdistill.cli import main
from simdistill.config.recipes import RECIPES
from simdistill.config.settings import to_mapping
from simdistill.data.prompts import read_prompts
from simdistill.evaluation.sampling import draw
from simdistill.method.samplers import heun
from simdistill.runs.folder import RunFolder
from simdistill.study.folder import StudyFolder
from simdistill.study.pairing import Source, Wanted, draft_pairs
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.pipeline_encoders import PipelineEncoder
from simdistill.teachers.weights import write_network
from simdistill.workflows.sampling import sample


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A run whose student is the teacher, undistilled."""
    run, teacher = RunFolder(tmp_path_factory.mktemp("runs") / "digits"), load_teacher("digits")
    RunFolder.create(run.path, {"verb": "distill", **to_mapping(RECIPES["digits"])})
    write_network(run.network, teacher.trainable, levels=[2.5], shape=teacher.shape, classes=10)
    return run.path


def shown(image):
    return np.asarray(image)[..., 0]


def bytes_of(samples):
    return ((samples[:, 0].clamp(-1, 1) + 1) * 127.5).round().byte().numpy()


@pytest.mark.parametrize(
    ("text", "place", "player"),
    [
        ("runs/x", "runs/x", "student"),
        ("student:runs/x", "runs/x", "student"),
        ("teacher:runs/x", "runs/x", "teacher"),
        ("C:/runs", "C:/runs", "student"),
    ],
)
def test_how_a_source_is_written(text, place, player):
    assert Source.named(text) == Source(place, player)


def test_student_and_teacher_of_a_run_from_the_same_seeds(digits):
    wanted = Wanted(each=2, seed=7)
    pairs = draft_pairs(Source(str(digits)), Source(str(digits), "teacher"), wanted)
    assert [pair.prompt for pair in pairs] == [f"class {k}" for k in range(10)] * 2
    labels = [*range(10), *range(10)]
    students = bytes_of(sample(digits, range(7, 27), labels[3:] + labels[:3]))  # seed s has the label at s mod 20
    teacher = load_teacher("digits")
    drawn = draw(
        lambda z, rows: heun(teacher.denoiser, z, rows, 18, 0.002, 80.0), range(7, 27), (1, 8, 8), torch.tensor(labels)
    )
    assert np.array_equal([shown(pair.a) for pair in pairs], students)
    assert np.array_equal([shown(pair.b) for pair in pairs], bytes_of(drawn))


@pytest.mark.slow
def test_prompts_go_through_the_teachers_own_encoder(pixart, tmp_path):
    teacher, run = load_teacher(str(pixart)), RunFolder(tmp_path / "run")
    recipe = replace(RECIPES["pixart-512"], teacher=str(pixart), teacher_levels="scheduler", teacher_guidance=3.0)
    RunFolder.create(run.path, {"verb": "distill", **to_mapping(recipe)})
    write_network(run.network, teacher.trainable, levels=[2.5], shape=teacher.shape, classes=0, text=True)
    (tmp_path / "two.txt").write_text("a red hat\nlong hair\n")
    source = Source(str(run.path))
    pairs = draft_pairs(source, replace(source, player="teacher"), Wanted(tmp_path / "two.txt"))
    assert [pair.prompt for pair in pairs] == ["a red hat", "long hair"]
    drawn = sample(run.path, range(2), teacher=teacher, prompts=["a red hat", "long hair"])
    expected = ((drawn.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    assert np.array_equal([np.asarray(pair.a) for pair in pairs], expected)
    encoder = PipelineEncoder(pixart)
    teacher = teacher.with_prompts(encoder(["a red hat", "long hair"]), encoder.empty())
    guided = teacher.guide(teacher.unguided, 3.0, recipe.guidance_interval)
    levels = 18, teacher.sigma_min, teacher.sigma_max
    rows = torch.arange(2)
    drawn = draw(lambda z, r: heun(guided, z, teacher.condition(r), *levels), range(2), teacher.shape, rows)
    expected = ((teacher.decoded(drawn).clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    assert np.array_equal([np.asarray(pair.b) for pair in pairs], expected)
    with pytest.raises(ValueError, match="--prompts = '': must be given"):
        draft_pairs(source, source, Wanted())


def test_the_shipped_students_classes_have_names():
    names = read_prompts(Path("fashion-mnist"))
    assert len(names) == 10
    assert (names[0], names[9]) == ("T-shirt or top", "Ankle boot")


def folder(path, names, value):
    path.mkdir()
    for k, name in enumerate(names):
        Image.new("RGB", (8, 8), (value, k, 0)).save(path / name)
    return path


def test_folders_are_matched_by_name(tmp_path):
    a = folder(tmp_path / "a", ["10.png", "2.png"], 1)
    b = folder(tmp_path / "b", ["2.webp", "10.png"], 2)
    (tmp_path / "p.txt").write_text("two\nten\n")
    pairs = draft_pairs(Source(str(a)), Source(str(b)), Wanted(tmp_path / "p.txt"))
    assert [pair.prompt for pair in pairs] == ["two", "ten"]
    assert [pair.a.getpixel((0, 0)) for pair in pairs] == [(1, 1, 0), (1, 0, 0)]
    assert pairs[1].b.getpixel((0, 0)) == (2, 1, 0)
    (tmp_path / "p.txt").write_text("same\n\nsame\n")
    assert [pair.prompt for pair in draft_pairs(Source(str(a)), Source(str(b)), Wanted(tmp_path / "p.txt"))] == [
        "same",
        "same",
    ]
    rows = [{"file_name": "10.png", "text": "TEN"}, {"file_name": "2.png", "text": "TWO"}]
    (a / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [pair.prompt for pair in draft_pairs(Source(str(a)), Source(str(b)), Wanted())] == ["TWO", "TEN"]


def test_accents_are_one_however_they_are_written(tmp_path):
    a, b = folder(tmp_path / "a", ["\u00e9.png"], 1), folder(tmp_path / "b", ["e\u0301.png"], 2)
    listing = tmp_path / "p.csv"
    listing.write_text("file_name,caption\ne\u0301.png,an accent\n", encoding="utf-8")
    (pair,) = draft_pairs(Source(str(a)), Source(str(b)), Wanted(listing))
    assert (pair.prompt, pair.a.getpixel((0, 0)), pair.b.getpixel((0, 0))) == ("an accent", (1, 0, 0), (2, 0, 0))


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_prompts_that_name_their_pictures_are_matched_by_name(tmp_path, kind, refused):
    a, b = (
        folder(tmp_path / "a", ["1.png", "2.png", "3.png"], 1),
        folder(tmp_path / "b", ["1.png", "2.png", "3.png"], 2),
    )
    listing = tmp_path / f"prompts.{kind}"

    def write(*names):
        rows = [
            {"file_name": name, "caption": text} for name, text in zip(names, ("three", "same", "same"), strict=True)
        ]
        lines = [json.dumps(row) for row in rows] if kind == "jsonl" else ["file_name,caption"]
        lines += [",".join(row.values()) for row in rows] if kind == "csv" else []
        listing.write_text("\n".join(lines) + "\n")

    write("3.png", "1.webp", "2")
    pairs = draft_pairs(Source(str(a)), Source(str(b)), Wanted(listing))
    assert [pair.prompt for pair in pairs] == ["same", "same", "three"]
    assert [(pair.a.getpixel((0, 0)), pair.b.getpixel((0, 0))) for pair in pairs] == [
        ((1, k, 0), (2, k, 0)) for k in range(3)
    ]
    words = ("study", "new", tmp_path / "s", "--a", a, "--b", b, "--prompts", listing)
    write("3.png", "1.png", "4.png")
    assert "without a file_name = ['2', '4']: must be none" in refused(*words)
    write("3.png", "1.png", "1.png")
    place = "line 3" if kind == "jsonl" else "row 3"
    assert f"prompts.{kind}, {place}: file_name = '1.png': must be in one row only" in refused(*words)
    write("3.png", "1.png", "1.webp")
    assert "file_name = ['1.png', '1.webp']: must be unique" in refused(*words)
    write("3.png", "1.png", "")
    assert f"{place}: file_name = " in refused(*words)


def test_what_is_wrong_with_a_folder_is_named(tmp_path, refused):
    a, empty = folder(tmp_path / "a", ["1.jpg", "2.png", "1.png"], 1), folder(tmp_path / "empty", [], 1)
    words = ("study", "new", tmp_path / "s", "--a", a, "--b", empty)
    message = refused(*words)
    assert "images of the same name = [" in message
    assert "'1.jpg'" in message
    assert "'1.png'" in message
    assert "'2.png'" not in message
    (a / "1.jpg").unlink()
    assert "empty: images = 0: must be at least one of .png" in refused(*words)


def test_a_folder_beside_a_model(digits, tmp_path):
    pictures = folder(tmp_path / "other", [f"{k}.png" for k in range(10)], 9)
    (pair, *_) = pairs = draft_pairs(Source(str(pictures)), Source(str(digits)), Wanted())
    assert len(pairs) == 10
    assert pair.a.getpixel((0, 0)) == (9, 0, 0)
    assert np.array_equal(shown(pair.b), bytes_of(sample(digits, [0], [0]))[0])
    lines = [json.dumps({"file_name": f"{9 - k}.png", "text": "digit"}) for k in range(10)]
    (tmp_path / "named.jsonl").write_text("\n".join(lines))
    named = draft_pairs(Source(str(pictures)), Source(str(digits)), Wanted(tmp_path / "named.jsonl"))
    assert [one.a.getpixel((0, 0)) for one in named] == [(9, 9 - k, 0) for k in range(10)]


def test_what_cannot_be_paired(digits, tmp_path, refused):
    a, b = folder(tmp_path / "a", ["1.png", "2.png"], 1), folder(tmp_path / "b", ["1.png", "3.png"], 2)
    (tmp_path / "p.txt").write_text("one\ntwo\nthree\n")
    new = ("study", "new", tmp_path / "s")
    assert "names in only one of the folders = ['2', '3']: must be none" in refused(*new, "--a", a, "--b", b)
    assert "a has no metadata.jsonl" in refused(*new, "--a", a, "--b", a, "--name-a", "x")
    words = ("--a", a, "--b", a, "--name-a", "x", "--prompts", tmp_path / "p.txt")
    assert "p.txt: prompts = 3: must be 2, one per image in" in refused(*new, *words)
    assert "a: images = 2: must be 10" in refused(*new, "--a", a, "--b", digits)
    assert "must be a run or a folder of images" in refused(*new, "--a", tmp_path / "none", "--b", digits)
    assert "prompts = 3: must be 10, one per class" in refused(
        *new, "--a", digits, "--b", f"teacher:{digits}", "--prompts", tmp_path / "p.txt"
    )
    assert "must be different; give --name-a" in refused(*new, "--a", digits, "--b", digits)
    assert "--each = 0: must be at least 1" in refused(*new, "--each", "0")
    assert "STEP = 'old': must be one of new" in refused("study", "old")
    assert not (tmp_path / "s").exists()


def test_a_teacher_of_ones_own_is_named_again(digits, tmp_path, monkeypatch, refused, capsys):
    own = RunFolder.create(
        tmp_path / "own", {"verb": "distill", **to_mapping(replace(RECIPES["digits"], teacher="paired_teacher:make"))}
    )
    own.network.write_bytes(RunFolder(digits).network.read_bytes())
    (tmp_path / "paired_teacher.py").write_text(
        "from simdistill.teachers.loading import load_teacher\ndef make():\n    return load_teacher('digits')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    sides = ("--a", own.path, "--b", f"teacher:{own.path}")
    assert "name it again with --teacher" in refused("study", "new", tmp_path / "s", *sides)
    words = ["study", "new", tmp_path / "s", *sides, "--teacher", "paired_teacher:make", "--json"]
    assert main([str(word) for word in words]) == 0
    assert json.loads(capsys.readouterr().out)["pairs"] == 10
    pairs = StudyFolder.open(tmp_path / "s").pairs
    picture = np.asarray(Image.open(tmp_path / "s" / "pictures" / pairs[3].a))
    assert np.array_equal(picture[..., 0], bytes_of(sample(digits, [3], [3]))[0])


def test_the_command_makes_a_study(digits, tmp_path, capsys):
    words = ["--a", str(digits), "--b", f"teacher:{digits}", "--checks", "1", "--tie", "--json"]
    assert main(["study", "new", str(tmp_path / "s"), *words]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made == {"study": str(tmp_path / "s"), "pairs": 11, "a": "student", "b": "teacher", "notes": {}}
    assert StudyFolder.open(tmp_path / "s").settings.tie
