"""Captions of faces, read back by a parser that knows English phrases and nothing of the tables they are made from."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.faces.attributes import VALUES, draw_attributes
from examples.faces.captions import write_caption
from examples.faces.wording import HAIR_COLOURS, HAIR_STYLES, STYLED, WORDS

SHIRT, HAT, HAIR = "(?:shirt|t-shirt|top|sweater|jumper)", "(?:hat|cap)", "(?:hair|curls|braids|plaits)"
LACKED = "(?:a hat|a cap|a beard|whiskers|glasses|spectacles)"
WITHOUT = rf"\bwithout {LACKED}(?:, {LACKED})*(?: or {LACKED})?"


def coloured(thing, **colours):
    """Patterns of "a red thing" and "the thing is red"."""
    return {value: rf"\b(?:{names}) {thing}\b|\b{thing} is (?:{names})\b" for value, names in colours.items()}


def hair(**colours):
    before, after = rf"(?:-haired| {HAIR})\b", r"\bhair is (?:\w+ and )?(?:jet-)?"
    return {value: rf"\b(?:{names}){before}|{after}(?:{names})\b" for value, names in colours.items()}


PATTERNS = {
    "expression": {
        "smiling": r"\b(?:smil\w+|smile|happy|cheerful)\b",
        "serious": r"\b(?:serious|solemn|straight)\b",
        "sad": r"\b(?:sad|unhappy|frown\w*)\b",
        "surprised": r"\b(?:surprised|astonished|open)\b",
    },
    "hair_style": {
        "long": r"\blong\b|shoulder",
        "short": r"\bshort\b|\bcropped\b",
        "curly": r"\bcurl|\bfrizzy\b",
        "braids": r"\bbraid|\bplait",
    },
    "hair_colour": hair(
        black="black", brown="brown|chestnut", blond="blonde?|golden", red="red|ginger|copper", grey="gr[ea]y|silver"
    ),
    "glasses": {
        "none": r"\bno (?:glasses|spectacles)\b",
        "glasses": r"\bbespectacled\b|(?<!dark )(?<!no )\b(?:glasses|spectacles)\b(?! are dark)",
        "sunglasses": r"\bsunglasses\b|\bdark glasses\b|\bshades\b|\bglasses are dark\b",
    },
    "hat": {
        "none": rf"\bno {HAT}\b|\bbareheaded\b|\bhatless\b",
        **coloured(HAT, red="red|crimson", blue="(?:dark )?blue"),
    },
    "beard": {
        "none": r"\bno (?:beard|whiskers)\b|\bclean-shaven\b|\bbeardless\b",
        "beard": r"(?<!no )\b(?:beard|bearded|whiskers)\b",
    },
    "clothing": coloured(
        SHIRT,
        red="red|scarlet",
        blue="(?:royal )?blue",
        green="(?:grass-)?green",
        yellow="(?:bright )?yellow",
        purple="purple|violet",
        black="(?:pitch-)?black",
    ),
    "skin": {
        "light": r"\b(?:light|fair)[ -](?:skin|complexion)|\bskin is (?:light|fair)\b|\bpale\b(?! blue| green)",
        "tan": r"\btan|\bolive\b",
        "dark": r"\b(?:dark|brown)[ -](?:skin|complexion)|\bskin is (?:dark|deep brown)\b",
    },
    "background": coloured(
        "(?:background|wall)",
        blue="(?:sky-|pale )?blue",
        green="(?:mint-|pale )?green",
        pink="pink|rose",
        purple="purple|lavender|lilac",
        white="(?:plain )?white",
    ),
}


def parse(text):
    """The attributes that a text mentions, each with all values that it mentions of it."""
    text = text.lower()
    for phrase in re.findall(WITHOUT, text):
        said = " ".join(f"no {thing.removeprefix('a ')}" for thing in re.findall(LACKED, phrase))
        text = text.replace(phrase, said, 1)
    found = {
        name: {value for value, pattern in patterns.items() if re.search(pattern, text)}
        for name, patterns in PATTERNS.items()
    }
    return {name: values for name, values in found.items() if values}


def caption_of(seed, attributes=None):
    rng = np.random.default_rng(seed)
    return write_caption(attributes or draw_attributes(rng), rng)


ATTRIBUTES = st.fixed_dictionaries({name: st.sampled_from(list(values)) for name, values in VALUES.items()})
SEEDS = st.integers(0, 2**32)


@settings(max_examples=300)
@given(attributes=ATTRIBUTES, seed=SEEDS)
def test_a_caption_tells_what_is_recorded_and_nothing_else(attributes, seed):
    caption = caption_of(seed, attributes)
    assert parse(caption.text) == {name: {value} for name, value in caption.specified.items()}, caption.text
    assert caption.specified.items() <= attributes.items()
    assert 2 <= len(caption.specified) <= 9


@given(attributes=ATTRIBUTES, seeds=st.tuples(SEEDS, SEEDS))
def test_two_captions_of_one_face_agree(attributes, seeds):
    one, other = (parse(caption_of(seed, attributes).text) for seed in seeds)
    assert all(one[name] == other[name] for name in one.keys() & other.keys())


@given(attributes=ATTRIBUTES, seed=SEEDS, names=st.sets(st.sampled_from(list(VALUES)), min_size=2))
def test_what_is_not_given_is_not_told(attributes, seed, names):
    some = {name: attributes[name] for name in names}
    assert caption_of(seed, some).specified.items() <= some.items()


def phrases():
    """Every phrase of the tables in a place where it may stand, with what it means."""
    frames = {
        "adjectives": "a {} person",
        "having": "a person with {}",
        "wearing": "a person wearing {}",
        "lacking": "a person without {}",
        "placed": "a person {}",
        "saying": "a person. {}",
    }
    for name, values in WORDS.items():
        for value, words in values.items():
            for place, frame in frames.items():
                yield from ((frame.format(phrase), {name: {value}}) for phrase in getattr(words, place))
    for style, patterns in HAIR_STYLES.items():
        assert parse(f"the hair is {STYLED[style]}") == {"hair_style": {style}}
        for colour, shades in HAIR_COLOURS.items():
            for pattern in patterns:
                yield from (
                    (f"with {pattern.format(s)}", {"hair_style": {style}, "hair_colour": {colour}}) for s in shades
                )


def test_each_phrase_means_one_value():
    wrong = [(phrase, parse(phrase), meant) for phrase, meant in phrases() if parse(phrase) != meant]
    assert not wrong
    assert set(WORDS) | {"hair_style", "hair_colour"} == set(VALUES)
    tables = {**WORDS, "hair_style": HAIR_STYLES, "hair_colour": HAIR_COLOURS}
    assert all(set(tables[name]) == set(values) for name, values in VALUES.items())


def test_wording_varies_and_every_value_is_told():
    captions = [caption_of(seed) for seed in range(3000)]
    texts = [caption.text for caption in captions]
    assert len(set(texts)) == len(texts)
    told = {pair for caption in captions for pair in caption.specified.items()}
    assert told == {(name, value) for name, values in VALUES.items() for value in values}
    counts = np.bincount([len(caption.specified) for caption in captions], minlength=10)
    assert counts[:2].tolist() == [0, 0]
    assert counts[2:] == pytest.approx(3000 / 8, rel=0.2)
    assert 0.3 < np.mean([text == text.lower() for text in texts]) < 0.5
    assert 0.4 < np.mean([text.endswith(".") for text in texts]) < 0.6
    assert {";", ":", ","} <= {character for text in texts for character in text}


def test_a_seed_gives_one_caption():
    assert [caption_of(seed) for seed in range(50)] == [caption_of(seed) for seed in range(50)]


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"hat": "red"}, "at least 2"),
        ({"hat": "red", "glasses": "pink"}, "glasses = 'pink': must be one of none, glasses, sunglasses"),
        ({"hat": "red", "nose": "long"}, "attribute = 'nose': must be one of expression"),
    ],
)
def test_what_cannot_be_told_is_refused(attributes, message):
    with pytest.raises(ValueError, match=message):
        write_caption(attributes, np.random.default_rng(0))


def test_the_page_lists_what_a_caption_can_tell():
    page = (Path(__file__).parents[2] / "docs" / "faces.md").read_text(encoding="utf-8")
    _, _, section = page.partition("| attribute | values |\n| --- | --- |\n")
    rows = [line.strip("| ").split(" | ") for line in section.partition("\n\n")[0].splitlines()]
    assert {name.replace(" ", "_"): values.split(", ") for name, values in rows} == {
        name: list(values) for name, values in VALUES.items()
    }
