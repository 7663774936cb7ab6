"""A study's folder: pictures that tell nothing, pairs that are whole, and what is refused."""

import io
import json
import stat

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from studies import drafts, noise

from simdistill.data.notes import Notes
from simdistill.data.pictures import read_picture
from simdistill.study.database import Database
from simdistill.study.folder import Draft, Pair, StudyFolder
from simdistill.study.pictures import bare_png, equal_sizes, scrambled
from simdistill.study.settings import Settings
from simdistill.study.site import application


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def test_a_png_holds_its_pixels_and_nothing_else(tmp_path):
    info = PngInfo()
    info.add_text("Software", "the student")
    noise(0).save(tmp_path / "told.png", pnginfo=info, dpi=(72, 72))
    exif = Image.Exif()
    exif[0x0131], exif[0x0112] = "the student", 6  # Software; turned by a quarter
    noise(0).save(tmp_path / "told.webp", exif=exif, lossless=True)
    content = bare_png(read_picture(tmp_path / "told.png", Notes()))
    assert np.array_equal(pixels(content), np.asarray(noise(0)))
    chunks, at = [], 8
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        chunks.append(content[at + 4 : at + 8])
        at += length + 12
    assert set(chunks) == {b"IHDR", b"IDAT", b"IEND"}
    upright = bare_png(read_picture(tmp_path / "told.webp", Notes()))
    assert b"student" not in upright
    assert np.array_equal(pixels(upright), np.rot90(np.asarray(noise(0)), -1))


def test_a_grey_picture_is_stored_as_a_coloured_one():
    grey, coloured = (bare_png(Image.new(mode, (4, 4))) for mode in ("L", "RGB"))
    assert grey == coloured


def test_sizes_are_made_equal():
    small, large = noise(1), Image.new("RGB", (48, 32), (10, 200, 30))
    for a, b in (equal_sizes(small, large, "x"), equal_sizes(large, small, "x")[::-1]):
        assert a is small
        assert np.array_equal(np.asarray(b), np.asarray(Image.new("RGB", (24, 16), (10, 200, 30))))
    with pytest.raises(ValueError, match=r"x: sizes = .*: must be of the same aspect ratio"):
        equal_sizes(small, Image.new("RGB", (24, 17)), "x")


def test_scrambled_pixels_are_the_same_in_another_order():
    before, after = np.asarray(noise(1)), np.asarray(scrambled(noise(1), 0))
    assert sorted(map(tuple, before.reshape(-1, 3))) == sorted(map(tuple, after.reshape(-1, 3)))
    assert (before != after).any(axis=2).mean() > 0.9


def test_a_study_is_stored_and_opened(tmp_path):
    asked = Settings(title="Clothes", a="one", b="two", tie=True, repeats=1)
    made = StudyFolder.create(tmp_path / "studies" / "s", asked, drafts(3), checks=2)
    study = StudyFolder.open(made.path)
    assert study.settings == made.settings
    assert (study.settings.title, study.settings.choices) == ("Clothes", ("left", "right", "tie"))
    assert [(pair.number, pair.prompt, pair.check) for pair in study.pairs] == [
        (1, "prompt 0", False),
        (2, "prompt 1", False),
        (3, "prompt 2", False),
        (4, "prompt 0", True),
        (5, "prompt 1", True),
    ]
    for k, pair in enumerate(study.pairs[:3]):
        assert np.array_equal(pixels(study.picture(pair.a)), np.asarray(noise(k)))
        assert np.array_equal(pixels(study.picture(pair.b)), np.asarray(noise(100 + k)))
    # the good pictures of checks are of either side in turn
    assert np.array_equal(pixels(study.picture(study.pairs[3].a)), np.asarray(noise(0)))
    assert np.array_equal(pixels(study.picture(study.pairs[4].a)), np.asarray(noise(101)))
    assert np.array_equal(pixels(study.picture(study.pairs[4].b)), np.asarray(scrambled(noise(101), 1)))
    names = [name for pair in study.pairs for name in (pair.a, pair.b)]
    assert len(set(names)) == 10
    assert all(len(name) == 36 and set(name[:-4]) <= set("0123456789abcdef") for name in names)


def test_only_the_owner_may_read_it(tmp_path):
    study = StudyFolder.create(tmp_path / "s", Settings(), drafts(1))
    assert stat.S_IMODE(study.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(study.token_file.stat().st_mode) == 0o600
    assert len(study.token) == 32
    assert StudyFolder.create(tmp_path / "t", Settings(), drafts(1)).token != study.token


@pytest.mark.parametrize("name", ["../owner.token", "owner.token", "..", "", "/etc/passwd", "0" * 32 + ".png"])
def test_no_other_file_is_a_picture(tmp_path, name):
    study = StudyFolder.create(tmp_path / "s", Settings(), drafts(1))
    with pytest.raises(KeyError):
        study.picture(name)


def test_what_is_refused(tmp_path):
    with pytest.raises(ValueError, match="pairs = 0: must be at least 1"):
        StudyFolder.create(tmp_path / "s", Settings(), [])
    with pytest.raises(ValueError, match="--checks = 3: must be in 0 … 2"):
        StudyFolder.create(tmp_path / "s", Settings(), drafts(2), checks=3)
    with pytest.raises(ValueError, match="--repeats = 3: must be in 0 … 2"):
        StudyFolder.create(tmp_path / "s", Settings(repeats=3), drafts(2))
    assert list(tmp_path.iterdir()) == []  # nothing is left of them
    with pytest.raises(ValueError, match="not a study's folder"):
        StudyFolder.open(tmp_path)
    study = StudyFolder.create(tmp_path / "s", Settings(), drafts(2))
    with pytest.raises(ValueError, match=r"STUDY = .*: must be a new folder"):
        StudyFolder.create(tmp_path / "s", Settings(), drafts(2))
    study.settings_file.write_text('questions = "three"\nties = true\n')
    with pytest.raises(ValueError, match=r"questions: 'three'.*; ties: unknown setting; did you mean tie"):
        _ = StudyFolder(study.path).settings
    study.pairs_file.write_text(json.dumps({"number": 1, "file": "x"}) + "\n")
    with pytest.raises(ValueError, match=r"pairs.jsonl, line 1: not a pair \(TypeError"):
        StudyFolder.open(study.path)
    with pytest.raises(ValueError, match="names of the two sides = 'x': must be different"):
        Settings(a="x", b="x")
    study.settings_file.write_text("a = ")
    with pytest.raises(ValueError, match=r"study.toml: cannot be read") as caught:
        _ = StudyFolder(study.path).settings
    assert str(caught.value).count("study.toml") == 1
    (tmp_path / "no.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"no.png: cannot be decoded"):
        read_picture(tmp_path / "no.png", Notes())


def test_a_missing_picture_is_named(tmp_path):
    study = StudyFolder.create(tmp_path / "s", Settings(), drafts(3))
    assert study.sizes == {1: (24, 16), 2: (24, 16), 3: (24, 16)}
    missing = study.path / "pictures" / study.pairs[1].b
    missing.unlink()
    with pytest.raises(ValueError, match=f"{missing.name}: image of pair 2 cannot be read"):
        application(StudyFolder.open(study.path), Database(study.database, study.settings.identity))


def test_pairs_survive_any_prompt(tmp_path):
    prompt = 'a "red" hat\u2028<script>alert(1)</script> ü\n'
    StudyFolder.create(tmp_path / "s", Settings(), [Draft(prompt, noise(1), noise(2))])
    (pair,) = StudyFolder.open(tmp_path / "s").pairs
    assert isinstance(pair, Pair)
    assert pair.prompt == prompt
