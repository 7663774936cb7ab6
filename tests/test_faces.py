"""The data set of faces: what is drawn, what is held out, what lies in the zips; drawing needs node and packages."""

import json
import zipfile
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from docs.faces import rendering
from docs.faces.attributes import PARTED_BY, UNSAID, VALUES, draw_attributes, draw_face, held_out
from docs.faces.making import draw, file_name, line, make, read_lines, write
from docs.faces.rendering import install, missing, render
from docs.faces.sheet import sheet
from simdistill.data.images import open_images
from simdistill.data.prompts import read_prompts

ABSENT = missing()
drawn = pytest.mark.skipif(bool(ABSENT), reason=ABSENT)


def some_face(seed, **attributes):
    rng = np.random.default_rng(seed)
    return draw_face({**draw_attributes(rng), **attributes}, rng)


def rgb(colour):
    return np.array([int(colour[k : k + 2], 16) for k in (0, 2, 4)])


def lighter(colour, share):
    """White over a colour."""
    return (1 - share) * rgb(colour) + share * 255


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
    options = some_face(0).options
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


# --- Node -------------------------------------------------------------------------------------------------------------


def test_without_node_it_is_said_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"node = None: must be on the path: install Node.js 18 or newer"):
        install()
    assert "no node and no npm" in missing()


def test_without_the_packages_it_is_said_how_to_fetch_them(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(rendering.shutil, "which", lambda program: f"/usr/bin/{program}")
    assert missing() == (
        f"DiceBear and resvg are not in {tmp_path}/simdistill/faces: `python -m docs.faces make` fetches them"
    )


@drawn
def test_colours_are_those_of_the_options():
    faces = [some_face(seed) for seed in range(300)]
    install()
    pixels = render([face.options for face in faces])
    assert pixels.shape == (300, 16, 16, 3)
    for face, picture in zip(faces, pixels, strict=True):
        options = face.options
        assert np.array_equal(picture[15, 0], rgb(options["backgroundColor"][0]))
        assert picture[8, 8] == pytest.approx(lighter(options["skinColor"][0], 0.1), abs=2)
        if face.attributes["hat"] != "none":
            assert picture[2, 5] == pytest.approx(rgb(options["hatColor"][0]), abs=2)
        colours = {tuple(colour) for row in picture for colour in row}
        assert tuple(rgb(options["hairColor"][0])) in colours
        assert tuple(rgb(options["clothingColor"][0])) in colours


@drawn
def test_every_variant_is_one_that_dicebear_draws():
    """It draws nothing, silently, for a name that it does not know."""
    install()
    base = some_face(0, hat="none", glasses="none", beard="none").options
    tried = {}
    for options in (UNSAID, *(value for values in VALUES.values() for value in values.values())):
        for option, several in options.items():
            if isinstance(several[0], str) and not option.endswith("Color"):
                shown = {**base, f"{option}Probability": 100}
                tried[option, "no such"] = {**shown, option: ["no such"]}
                tried |= {(option, variant): {**shown, option: [variant]} for variant in several}
    pictures = dict(zip(tried, render(list(tried.values())), strict=True))
    same = [
        (one, other)
        for one, other in combinations(tried, 2)
        if one[0] == other[0] and np.array_equal(pictures[one], pictures[other])
    ]
    assert len(tried) == 85
    assert same == []


@drawn
def test_beards_show_whatever_the_colour_and_sunglasses_are_dark():
    install()
    for colour in VALUES["hair_colour"]:
        with_beard = some_face(1, hair_colour=colour, beard="beard", hair_style="short", skin="light").options
        bearded, shaven = render([with_beard, {**with_beard, "beardProbability": 0}]).astype(int)
        assert np.abs(bearded - shaven)[9:12].max(-1).max() > 30
    clear = some_face(2, glasses="glasses", hair_style="short").options
    dark = {**clear, "glasses": [clear["glasses"][0].replace("light", "dark")]}
    bright, dim = render([clear, dark]).astype(float).mean((1, 2, 3))
    assert bright - dim > 5


@drawn
def test_making_is_repeatable_and_larger_counts_add(tmp_path):
    make(tmp_path / "a", 30, 10, seed=5)
    make(tmp_path / "b", 30, 12, seed=5)
    make(tmp_path / "c", 30, 10, seed=6)
    read = {name: (tmp_path / name / "train.zip").read_bytes() for name in "abc"}
    assert read["a"] == read["b"] != read["c"]
    longer, held = ((tmp_path / name / "held-out.jsonl").read_text().splitlines() for name in "ba")
    assert longer[:10] == held
    assert all(held_out(about["attributes"]) for about in read_lines(tmp_path / "a" / "held-out.zip"))
    assert read_prompts(tmp_path / "a" / "held-out.jsonl") == [json.loads(text)["text"] for text in held]
    images = open_images(tmp_path / "a" / "train.zip")
    faces = [draw("train", 5, index)[0].options for index in range(30)]
    assert np.array_equal(images.read(range(30)).permute(0, 2, 3, 1), render(faces))


@drawn
def test_an_error_of_nodes_is_told():
    install()
    with pytest.raises(ValueError, match="not opaque"):
        render([{**some_face(0).options, "backgroundColor": ["transparent"]}])


@pytest.mark.parametrize(
    ("counts", "message"), [((0, 1, 0), "count = 0"), ((1, 0, 0), "held-out-count"), ((1, 1, -1), "seed")]
)
def test_counts_and_seeds_are_checked(counts, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, *counts)
