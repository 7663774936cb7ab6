"""Faces as node draws them: colours, variants, and what is said when node or its packages are missing."""

import json
from itertools import combinations

import numpy as np
import pytest

from examples.faces.attributes import UNSAID, VALUES, draw_attributes, draw_face, held_out
from examples.faces.making import draw, make, read_lines
from examples.faces.rendering import install, render
from simdistill.data.images import open_images
from simdistill.data.prompts import read_prompts


def drawn(test):
    """By node: slow, for npm may have to fetch its packages."""
    return pytest.mark.slow(pytest.mark.usefixtures("node")(test))


def some_face(seed, **attributes):
    rng = np.random.default_rng(seed)
    return draw_face({**draw_attributes(rng), **attributes}, rng)


def rgb(colour):
    return np.array([int(colour[k : k + 2], 16) for k in (0, 2, 4)])


def lighter(colour, share):
    """White over a colour."""
    return (1 - share) * rgb(colour) + share * 255


def test_without_node_it_is_said_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"node = None: must be on the PATH: install Node.js 18 or newer"):
        install()


def test_without_npms_registry_it_is_said_what_failed(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    for program in ("node", "npm"):
        (tmp_path / program).write_text("#!/bin/sh\necho no route to the registry >&2\nexit 1\n")
        (tmp_path / program).chmod(0o755)
    with pytest.raises(ValueError, match=r"npm install .*: failed; .* no route to the registry"):
        install()


@drawn
def test_colours_are_those_of_the_options():
    faces = [some_face(seed) for seed in range(300)]
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
    with pytest.raises(ValueError, match="not opaque"):
        render([{**some_face(0).options, "backgroundColor": ["transparent"]}])
