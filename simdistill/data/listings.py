"""Files that describe images: EDM's `dataset.json` of labels, and `metadata.jsonl` of captions."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simdistill.data.prompts import COLUMNS
from simdistill.support.checks import require

LABELS, CAPTIONS = "dataset.json", "metadata.jsonl"


def listed_labels(path: Path, names: Sequence[str], listing: bytes | None) -> Tensor | None:
    """The labels in EDM's `dataset.json`: {"labels": [["00000/img00000000.png", 6], …]}, or null for none.

    Raises `ValueError` if it has another form or misses an image.
    """
    if listing is None:
        return None
    try:
        pairs = json.loads(listing)["labels"]
        labels = None if pairs is None else {str(name): label for name, label in pairs}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: its {LABELS} must have EDM's form: labels as [[file, class], …]") from error
    if labels is None:
        return None
    missing = next((name for name in names if name not in labels), None)
    require(missing is None, f"{path}: label of {missing}", None, f"in {LABELS}, which must list every image")
    chosen = [labels[name] for name in names]
    whole = all(type(label) is int and 0 <= label < 2**31 for label in chosen)
    require(whole, f"{path}: labels in {LABELS}", chosen[0], "class numbers from 0 on")
    return torch.tensor(chosen)


def caption_lines(captions: Iterable[tuple[str, str]]) -> str:
    """The lines of a `metadata.jsonl`, from pairs of image name and caption."""
    return "\n".join(json.dumps({"file_name": name, "text": text}, ensure_ascii=False) for name, text in captions)


def listed_captions(path: Path, names: Sequence[str], listing: bytes | None) -> list[str] | None:
    """The captions in a `metadata.jsonl` (as in Hugging Face's image folders), with one line per image.

    {"file_name": "00000/img00000000.png", "text": "a cat"}; any of `COLUMNS` may take the place of text. None if the
    lines have none of them. Raises `ValueError` if it has another form or misses an image.
    """
    if listing is None:
        return None
    try:
        rows: list[dict[str, Any]] = [json.loads(line) for line in listing.decode().splitlines() if line.strip()]
        column = next((column for column in COLUMNS if column in rows[0]), None)
        captions = {str(row["file_name"]): str(row[column]) for row in rows} if column else None
    except (ValueError, KeyError, TypeError, IndexError) as error:
        form = '{"file_name": …, "text": …}, one line per image'
        raise ValueError(f"{path}: its {CAPTIONS} must hold {form} ({type(error).__name__}: {error})") from error
    if captions is None:
        return None
    missing = next((name for name in names if name not in captions), None)
    require(missing is None, f"{path}: caption of {missing}", None, f"in {CAPTIONS}, which must list every image")
    return [" ".join(captions[name].split()) for name in names]
