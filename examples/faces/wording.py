"""The wording of captions: words that mean exactly one value of one attribute."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """The ways to say one value, by their place in a caption; each place may be empty, but not all."""

    adjectives: tuple[str, ...] = ()
    """Before the noun: a *smiling* person."""
    having: tuple[str, ...] = ()
    """After "with"."""
    wearing: tuple[str, ...] = ()
    """After "wearing"."""
    lacking: tuple[str, ...] = ()
    """After "without"; after "no" the article is dropped."""
    placed: tuple[str, ...] = ()
    """At the beginning or the end of a sentence."""
    saying: tuple[str, ...] = ()
    """A clause of its own."""


def _worn(nouns: tuple[str, ...], colours: tuple[str, ...]) -> Words:
    pairs = [(colour, noun) for colour in colours for noun in nouns]
    return Words(
        wearing=tuple(f"a {colour} {noun}" for colour, noun in pairs),
        saying=tuple(f"the {noun} is {colour}" for colour, noun in pairs),
    )


def _shirt(*colours: str) -> Words:
    return _worn(("shirt", "T-shirt", "top", "sweater", "jumper"), colours)


def _hat(*colours: str) -> Words:
    return _worn(("hat", "cap"), colours)


def _skin(adjectives: tuple[str, ...], *colours: str) -> Words:
    return Words(
        adjectives=adjectives,
        having=tuple(f"{colour} {noun}" for colour in colours for noun in ("skin", "complexion")),
        saying=tuple(f"the skin is {colour}" for colour in colours),
    )


def _background(*colours: str) -> Words:
    return Words(
        having=tuple(f"a {colour} background" for colour in colours),
        placed=tuple(
            f"{where} a {colour} {what}"
            for colour in colours
            for where, what in (("on", "background"), ("against", "background"), ("in front of", "wall"))
        ),
        saying=tuple(f"the background is {colour}" for colour in colours),
    )


WORDS: dict[str, dict[str, Words]] = {
    "expression": {
        "smiling": Words(
            adjectives=("smiling", "happy", "cheerful"),
            having=("a smile", "a happy expression"),
            saying=("the mouth smiles", "they smile"),
        ),
        "serious": Words(
            adjectives=("serious", "solemn"),
            having=("a straight mouth", "a serious expression"),
            saying=("the mouth is straight", "they look serious"),
        ),
        "sad": Words(
            adjectives=("sad", "unhappy", "frowning"),
            having=("a frown", "a sad expression"),
            saying=("they frown", "they look sad"),
        ),
        "surprised": Words(
            adjectives=("surprised", "astonished"),
            having=("an open mouth", "a surprised expression"),
            saying=("the mouth is open", "they look surprised"),
        ),
    },
    "glasses": {
        "none": Words(lacking=("glasses", "spectacles"), saying=("there are no glasses",)),
        "glasses": Words(
            adjectives=("bespectacled",),
            wearing=("glasses", "clear glasses", "spectacles"),
            saying=("they wear glasses", "the glasses are clear"),
        ),
        "sunglasses": Words(
            wearing=("sunglasses", "dark glasses", "shades"),
            saying=("they wear sunglasses", "the glasses are dark"),
        ),
    },
    "hat": {
        "none": Words(adjectives=("bareheaded", "hatless"), lacking=("a hat", "a cap"), saying=("there is no hat",)),
        "red": _hat("red", "crimson"),
        "blue": _hat("blue", "dark blue"),
    },
    "beard": {
        "none": Words(
            adjectives=("clean-shaven", "beardless"), lacking=("a beard", "whiskers"), saying=("there is no beard",)
        ),
        "beard": Words(
            adjectives=("bearded",), having=("a beard", "a full beard", "whiskers"), saying=("they have a beard",)
        ),
    },
    "clothing": {
        "red": _shirt("red", "scarlet"),
        "blue": _shirt("blue", "royal blue"),
        "green": _shirt("green", "grass-green"),
        "yellow": _shirt("yellow", "bright yellow"),
        "purple": _shirt("purple", "violet"),
        "black": _shirt("black", "pitch-black"),
    },
    "skin": {
        "light": _skin(("light-skinned", "fair-skinned", "pale"), "light", "fair"),
        "tan": _skin(("tanned", "olive-skinned"), "tan", "olive"),
        "dark": _skin(("dark-skinned", "brown-skinned"), "dark", "deep brown"),
    },
    "background": {
        "blue": _background("blue", "sky-blue", "pale blue"),
        "green": _background("green", "mint-green", "pale green"),
        "pink": _background("pink", "rose"),
        "purple": _background("purple", "lavender", "lilac"),
        "white": _background("white", "plain white"),
    },
}
"""For all attributes except those of hair, which are described together."""

HAIR_STYLES: dict[str, tuple[str, ...]] = {
    "long":   ("long {} hair", "{} hair down to the shoulders", "shoulder-length {} hair"),
    "short":  ("short {} hair", "{} hair cut short", "close-cropped {} hair"),
    "curly":  ("curly {} hair", "{} curls", "frizzy {} hair"),
    "braids": ("braided {} hair", "{} braids", "{} plaits"),
}  # fmt: skip
"""With a placeholder for a colour, which may be empty."""
STYLED: dict[str, str] = {"long": "long", "short": "short", "curly": "curly", "braids": "braided"}
"""As an adjective: the hair is *long*, a *long*-haired person."""
HAIR_COLOURS: dict[str, tuple[str, ...]] = {
    "black": ("black", "jet-black"),
    "brown": ("brown", "chestnut"),
    "blond": ("blond", "blonde", "golden"),
    "red":   ("red", "ginger", "copper"),
    "grey":  ("grey", "gray", "silver"),
}  # fmt: skip

OPENINGS = ("", "", "", "", "a portrait of ", "a picture of ", "pixel art of ")
"""What a sentence may begin with."""
PEOPLE = ("person", "character", "avatar", "face", "human")
"""The nouns for the person."""
HEADINGS = ("portrait", "avatar", "face", "pixel art", "pixel portrait of a person", "")
"""What a list may begin with."""
