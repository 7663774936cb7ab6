"""The image files of a folder or a zip: which are images, their labels, their captions, and the held-out ones."""

import os
import posixpath
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from simdistill.data.file_names import left_behind, names_in, with_suffix
from simdistill.data.listings import CAPTIONS, LABELS, captions_for, listed_captions, listed_labels
from simdistill.data.notes import Notes, in_short
from simdistill.data.pictures import LARGEST_FILE, SUFFIXES, content_of
from simdistill.support.checks import require
from simdistill.support.zip_files import check_density

TRAINING, HELD_OUT = ("train", "training"), ("test", "val", "valid", "validation")
"""Folders that hold the parts of a data set, as in Hugging Face's image folders and in ImageNet's."""

LARGEST_LISTING = 2**30  # bytes of a file of labels or captions


@dataclass(frozen=True)
class ImageFiles:
    """Image files in the order of their `names`, the function that loads one, and their labels and captions, if any.

    If they are those of a folder train, `held_out` has those of test or val beside it.
    """

    names: Sequence[str]
    load: Callable[[str], bytes]
    labels: Tensor | None = None
    captions: Sequence[str] | None = None
    held_out: "ImageFiles | None" = None


def files_in_zip(path: Path, notes: Notes) -> ImageFiles:
    """The images in a zip, with labels in EDM's `dataset.json`; `ValueError` if it is damaged or too large."""
    try:
        archive = zipfile.ZipFile(path)  # stays open: reading the list of a large one takes long; threads may share it
        entries = archive.infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"{path}: not a valid zip file ({error})") from error
    known = {entry.filename: entry for entry in entries}

    def load(name: str) -> bytes:
        most, shown = (LARGEST_FILE, "64 MiB") if name.lower().endswith(SUFFIXES) else (LARGEST_LISTING, "1 GiB")
        size = known[name].file_size
        require(size <= most, f"{path}: size of {name}", size, f"at most {shown}")
        check_density(str(path), known[name])
        try:
            return archive.read(name)
        # RuntimeError: an encrypted entry, or an unknown method of compression
        except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, EOFError) as error:
            raise ValueError(f"{path}: {name} cannot be read ({error})") from error

    return _described(str(path), known, load, notes, by_folder=False)


def files_in_folder(path: Path, notes: Notes) -> ImageFiles:
    """The images at any depth of a folder, labelled by `dataset.json` or else by the folders that they lie in."""

    def load(name: str) -> bytes:
        return content_of(path / name) if name.lower().endswith(SUFFIXES) else _listing(path / name)

    return _described(str(path), set(names_in(path)), load, notes, by_folder=True)


def numbered_pictures(folder: Path, notes: Notes) -> list[Path]:
    """The images in a folder, in natural order: 2.png before 10.png."""

    def place(file: Path) -> list[tuple[int, str]]:
        parts = (part for part in re.split(r"(\d+)", file.stem) if part)
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]

    files = (entry.name for entry in os.scandir(folder) if entry.is_file())
    return sorted((folder / name for name in with_suffix(files, SUFFIXES, notes, CAPTIONS)), key=place)


def folder_captions(folder: Path, names: Sequence[str], notes: Notes) -> list[str] | None:
    """The captions of these images directly in a folder, from its `metadata`; None if it has none."""
    listings = [name for name in CAPTIONS if (folder / name).is_file()]
    listed = listed_captions(str(folder), names, listings, lambda name: _listing(folder / name), notes)
    return captions_for(str(folder), names, listed)


def _listing(path: Path) -> bytes:
    size = path.stat().st_size
    require(size <= LARGEST_LISTING, f"size of {path}", size, "at most 1 GiB")
    return path.read_bytes()


def _described(
    where: str, there: Collection[str], load: Callable[[str], bytes], notes: Notes, by_folder: bool
) -> ImageFiles:
    names = with_suffix(there, SUFFIXES, notes, known=(LABELS, *CAPTIONS))
    require(len(names) > 0, f"{where}: images", 0, f"at least one of {', '.join(SUFFIXES)}")
    listings = [name for name in there if posixpath.basename(name) in CAPTIONS and not left_behind(name)]
    listed = listed_captions(where, names, listings, load, notes)
    if LABELS in there:
        labels = listed_labels(where, names, load(LABELS))
        return ImageFiles(names, load, labels, captions_for(where, names, listed))
    training, held_out = _split(names, notes)
    classes = sorted({posixpath.dirname(name) for name in training}) if by_folder else []
    found = ImageFiles(training, load, captions=captions_for(where, training, listed))
    if len(classes) > 1:
        found = replace(found, labels=_numbers(training, classes))
        sizes = Counter(posixpath.dirname(name) for name in training)
        notes.count(f"classes, by folder ({in_short({name or '.': sizes[name] for name in classes})})", len(classes))
    if not held_out:
        return found
    top = training[0].partition("/")[0]
    like_training = [f"{top}/{name.partition('/')[2]}" for name in held_out]
    if found.labels is not None and not {posixpath.dirname(name) for name in like_training} <= {*classes}:
        notes.count(f"images of the held-out part left out: its folders are not those of {top}", len(held_out))
        return found
    notes.count(f"images of {held_out[0].partition('/')[0]}, as the held-out part of {top}", len(held_out))
    labels = None if found.labels is None else _numbers(like_training, classes)
    captions = captions_for(where, held_out, listed) if listed and listed.keys() & {*held_out} else None
    return replace(found, held_out=ImageFiles(held_out, load, labels, captions))


def _split(names: Sequence[str], notes: Notes) -> tuple[Sequence[str], Sequence[str]]:
    """The training and the held-out images, if all lie in folders named so; else all images, and none."""
    tops = {name.partition("/")[0] if "/" in name else "" for name in names}
    training = [top for top in tops if top.lower() in TRAINING]
    held_out = sorted((top for top in tops if top.lower() in HELD_OUT), key=lambda top: HELD_OUT.index(top.lower()))
    if len(training) != 1 or not held_out or len(tops) != 1 + len(held_out):
        return names, []
    first, second = ([name for name in names if name.startswith(f"{top}/")] for top in (training[0], held_out[0]))
    left_out = len(names) - len(first) - len(second)
    if left_out:
        notes.count(f"images left out, neither in {training[0]} nor in {held_out[0]}", left_out)
    return first, second


def _numbers(names: Sequence[str], classes: Sequence[str]) -> Tensor:
    """The labels of images by their folders."""
    number = {name: k for k, name in enumerate(classes)}
    return torch.tensor([number[posixpath.dirname(name)] for name in names])
