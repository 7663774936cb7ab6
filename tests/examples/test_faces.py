"""The data set of faces: what is drawn, what is held out, and what lies in the zips."""

import json
import zipfile
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from examples.faces.attributes import PARTED_BY, UNSAID, VALUES, draw_attributes, draw_face, held_out
from examples.faces.making import draw, file_name, line, make, read_lines, write
from examples.faces.sheet import sheet
from simdistill.data.images import open_images

# --- Attributes -------------------------------------------------------------------------------------------------------


def test_values_are_uniform_and_independent():
    faces = [draw_attributes(np.random.default_rng(seed)) for seed in range(4000)]
    for name, values in VALUES.items():
        found = Counter(face[name] for face in faces)
        assert [found[value] for value in values] == pytest.approx([4000 / len(values)] * len(values), rel=0.15)
    for one, other in combinations(VALUES, 2):
        cells = len(VALUES[one]) * len(VALUES[other])
        found = Counter((face[one], face[other]) for face in faces)
        chi_squared = sum((count - 4000 / cells) ** 2 for count in found.values()) / (4000 / cells)
        assert len(found) == cells
        assert chi_squared < cells + 5 * (2 * cells) ** 0.5


def test_options_leave_nothing_to_chance():
    options = draw("train", 0, 0)[0].options
    names = set(UNSAID).union(*(value for values in VALUES.values() for value in values.values()))
    assert {name for name in names if name.endswith("Probability")} <= options.keys()
    assert all(
        value in (0, 100) if name.endswith("Probability") else len(value) == 1 for name, value in options.items()
    )


def test_the_parts_share_no_combination():
    parts = [[draw(part, 0, index)[0].attributes for index in range(3000)] for part in ("train", "held-out")]
    train, held = ({tuple(face[name] for name in PARTED_BY) for face in part} for part in parts)
    assert not train & held
    assert (len(train), len(held)) == (130, 20)
    assert all(held_out(face) == (part is parts[1]) for part in parts for face in part)
    for part in parts:
        assert {pair for face in part for pair in face.items()} == {
            (n, v) for n, values in VALUES.items() for v in values
        }
    for one, other in combinations(PARTED_BY, 2):
        pairs = {(face[one], face[other]) for face in parts[0]}
        assert len(pairs) == len(VALUES[one]) * len(VALUES[other])


def test_held_out_captions_tell_their_combination_and_others_may_not():
    train, held = ([draw(part, 0, index)[1].specified for index in range(300)] for part in ("train", "held-out"))
    assert all(set(PARTED_BY) <= set(told) for told in held)
    assert 0.1 < np.mean([set(PARTED_BY) <= set(told) for told in train]) < 0.4
    counts = [np.mean([name in told for told in held]) for name in VALUES if name not in PARTED_BY]
    assert counts == pytest.approx([5.5 / 9] * 6, abs=0.12)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"hat": "red"}, "must have expression, as all nine"),
        ({"hat": "pink"}, "hat = 'pink': must be one of none, red"),
    ],
)
def test_what_cannot_be_drawn_is_refused(attributes, message):
    with pytest.raises(ValueError, match=message):
        draw_face(attributes, np.random.default_rng(0))


# --- Files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path):
    """A zip of five pictures of noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    lines = [line(index, *draw("train", 3, index)) for index in range(5)]
    write(tmp_path / "train.zip", pixels, lines)
    return tmp_path / "train.zip", pixels, lines


def test_a_zip_holds_pictures_and_lines_in_one_order(small):
    path, pixels, lines = small
    images = open_images(path)
    assert (images.shape, len(images), images.labels) == ((3, 16, 16), 5, None)
    assert np.array_equal(images.read(range(5)).permute(0, 2, 3, 1), pixels)
    told = read_lines(path)
    assert [json.dumps(about) + "\n" for about in told] == lines
    assert [about["file_name"] for about in told] == [f"00000/img0000000{k}.png" for k in range(5)]
    assert all(about["specified"].items() <= about["attributes"].items() for about in told)
    with zipfile.ZipFile(path) as archive:
        assert [entry.filename for entry in archive.infolist()] == [a["file_name"] for a in told] + ["metadata.jsonl"]
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())


def test_names_are_edms():
    assert [file_name(index) for index in (0, 999, 1000, 43210)] == [
        "00000/img00000000.png",
        "00000/img00000999.png",
        "00001/img00001000.png",
        "00043/img00043210.png",
    ]


def test_a_failed_drawing_leaves_no_file(tmp_path):
    def broken():
        yield np.zeros((16, 16, 3), np.uint8)
        raise ValueError("node")

    with pytest.raises(ValueError, match="node"):
        write(tmp_path / "train.zip", broken(), [])
    assert not list(tmp_path.iterdir())


def test_a_sheet_shows_the_pictures_enlarged(small, tmp_path):
    path, pixels, _ = small
    sheet(path, tmp_path / "sheet.png", count=5, seed=0)
    shown = np.asarray(Image.open(tmp_path / "sheet.png"))
    first = shown[12 : 12 + 128, 12 : 12 + 128]
    assert np.array_equal(first, pixels[0].repeat(8, 0).repeat(8, 1))


def test_other_zips_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(ValueError, match="not a zip of faces"):
        read_lines(tmp_path / "other.zip")
    with pytest.raises(ValueError, match="not a zip of faces"):
        read_lines(tmp_path / "none.zip")


@pytest.mark.parametrize(
    ("counts", "message"), [((0, 1, 0), "count = 0"), ((1, 0, 0), "held-out-count"), ((1, 1, -1), "seed")]
)
def test_counts_and_seeds_are_checked(counts, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, *counts)
