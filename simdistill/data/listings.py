"""Files that describe images: EDM's `dataset.json` of labels, and the `metadata` of Hugging Face's image folders."""

import json
import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from simdistill.data.notes import Notes
from simdistill.data.rows import COLUMNS, Row, rows_of, text_of
from simdistill.support.checks import require
from simdistill.support.json_text import json_value

LABELS = "dataset.json"
CAPTIONS = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
"""The files of captions, in order of preference."""
FILE_NAME = "file_name"
"""The column with the name of a text's image, as in Hugging Face's image folders."""


def listed_labels(where: str, names: Sequence[str], listing: bytes) -> Tensor | None:
    """The labels in EDM's `dataset.json`: {"labels": [["00000/img00000000.png", 6], …]}, or null for none.

    Raises `ValueError` if it has another form or misses an image.
    """
    content = json_value(f"{where}: its {LABELS}", listing)
    try:
        pairs = content["labels"]
        labels = None if pairs is None else {str(name): label for name, label in pairs}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{where}: its {LABELS} must have EDM's form: labels as [[file, class], …]") from error
    if labels is None:
        return None
    missing = next((name for name in names if name not in labels), None)
    require(missing is None, f"{where}: label of {missing}", None, f"in {LABELS}, which must list every image")
    chosen = [labels[name] for name in names]
    whole = all(type(label) is int and 0 <= label < 2**31 for label in chosen)
    require(whole, f"{where}: labels in {LABELS}", chosen[0], "class numbers from 0 on")
    return torch.tensor(chosen)


def caption_lines(captions: Iterable[tuple[str, str]]) -> str:
    """The lines of a `metadata.jsonl`, from pairs of image name and caption; null for an empty one."""
    rows = ({FILE_NAME: name, "text": text or None} for name, text in captions)
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)


def listed_captions(
    where: str, names: Sequence[str], listings: Iterable[str], load: Callable[[str], bytes], notes: Notes
) -> dict[str, str] | None:
    """The captions of images in Hugging Face's form: {"file_name": "0.png", "text": "a cat"}, a row per image.

    `listings` are those of `CAPTIONS` at any depth: each names images relative to its own folder, and the nearest to an
    image counts. The caption is in the first of `COLUMNS` that it has; "" for null. None if no listing has any.

    Raises `ValueError` if a row names no image, or an image stands in two rows of a listing.
    """
    listed, wanted, with_texts = dict[str, str](), set(names), False
    chosen = _preferred(listings, notes)
    for listing in sorted(chosen, key=lambda name: name.count("/")):  # the nearest last, so that it counts
        suffix = posixpath.splitext(listing)[1]
        rows = list(rows_of(f"{where}: {listing}", suffix, load(listing)))
        keys = {key for _, row in rows for key in row}
        column = next((name for name in COLUMNS if name in keys), None)
        if column is None:
            notes.count(f"listings without captions: {listing} has {', '.join(sorted(keys)) or 'no rows'}")
            continue
        with_texts = True
        own = _own(rows, posixpath.dirname(listing), column, notes)
        unknown = len(own.keys() - wanted)
        if unknown:
            notes.count(f"rows of {listing} that name no image here", unknown)
        listed |= own
    return listed if with_texts else None


def captions_for(where: str, names: Sequence[str], listed: Mapping[str, str] | None) -> list[str] | None:
    """The captions of these images, if there are `listed` ones; `ValueError` if one is missing."""
    if listed is None:
        return None
    missing = next((name for name in names if name not in listed), None)
    what = f"in {' or '.join(CAPTIONS)}, which must list every image"
    require(missing is None, f"{where}: caption of {missing}", None, what)
    return [listed[name] for name in names]


def _preferred(listings: Iterable[str], notes: Notes) -> list[str]:
    """One listing per folder."""
    chosen: dict[str, str] = {}
    for listing in sorted(listings, key=lambda name: CAPTIONS.index(posixpath.basename(name))):
        folder = posixpath.dirname(listing)
        if folder in chosen:
            notes.pass_over(posixpath.basename(listing))
        chosen.setdefault(folder, listing)
    return list(chosen.values())


def _own(rows: Iterable[tuple[str, Row]], folder: str, column: str, notes: Notes) -> dict[str, str]:
    """The captions of a listing by the images' names, which are relative to its `folder`."""
    found: dict[str, str] = {}
    first: dict[str, str] = {}
    for place, row in rows:
        name = row.get(FILE_NAME)
        named = isinstance(name, str) and name != ""
        require(named, f"{place}: {FILE_NAME}", name, 'the name of an image: {"file_name": …, "text": …}')
        whole = posixpath.normpath(posixpath.join(folder, str(name)))
        again = first.get(whole)
        require(again is None, f"{place}: {FILE_NAME}", name, f"in one row only; it also stands in {again}")
        first[whole] = place
        found[whole] = text_of(f"{place}: {column}", row.get(column), notes) or ""
    return found
