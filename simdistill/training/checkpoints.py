"""Checkpoints: written whole or not at all, checked before they are trusted, several kept."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from simdistill.support.files import digest, replacing, write_atomically
from simdistill.support.tensors import read_tensors

KEPT = 3


class NoSoundCheckpoint(ValueError):  # noqa: N818
    """There are checkpoints, and all of them are damaged."""


def write_checkpoint(folder: Path, iteration: int, state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
    """Store `state` with `facts` (JSON values) as the newest checkpoint; of those before it, two stay.

    Beside the tensors stands their SHA-256 as `sha256sum -c` reads it, written last: without it a checkpoint counts for
    nothing. Raises `OSError` if the disk does not take it; the checkpoints before are then as they were.
    """
    path = folder / f"{iteration:09d}.safetensors"
    try:
        with replacing(path) as temporary:
            tensors = {name: tensor.contiguous() for name, tensor in state.items()}
            save_file(tensors, temporary, {"simdistill": json.dumps(facts)})
            sha256 = digest(temporary)
            _digest_file(path).unlink(missing_ok=True)  # of a checkpoint that is replaced, after a roll-back
    except SafetensorError as error:  # how it reports a full disk
        raise OSError(f"{path}: could not be written ({error})") from error
    write_atomically(_digest_file(path), f"{sha256}  {path.name}\n".encode())
    found = checkpoints(folder)
    here = found.index(path)
    for other in found[:here] + found[here + KEPT :]:  # newer ones are damaged, or of a course that was given up
        _digest_file(other).unlink(missing_ok=True)  # first: what is left of it counts for nothing
        other.unlink()
    return path


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, the newest first, sound or not."""
    return sorted(folder.glob("[0-9]*.safetensors"), reverse=True)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest sound checkpoint, or None if there is none at all.

    Damaged ones that are newer are named on stderr. Raises `NoSoundCheckpoint` if all are damaged.
    """
    found = checkpoints(folder)
    for path in found:
        if _is_sound(path):
            return path
        what = "is not what was written (its SHA-256 differs or is missing)"
        print(f"{path}: {what}; going back to the checkpoint before", file=sys.stderr, flush=True)
    if found:
        raise NoSoundCheckpoint(f"{folder}: no checkpoint is sound; start again with another --out, or --overwrite")
    return None


def all_finite(state: Mapping[str, Tensor]) -> bool:
    """Whether no tensor of `state` holds an infinite number or NaN."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in state.values())


def _is_sound(path: Path) -> bool:
    try:
        return _digest_file(path).read_text(encoding="utf-8").split()[0] == digest(path)
    except (OSError, IndexError, UnicodeDecodeError):
        return False


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State and facts of a checkpoint; `ValueError` if it is none."""
    state, metadata = read_tensors(path)
    try:
        return state, dict(json.loads(metadata["simdistill"]))
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: not a checkpoint of simdistill's") from error


def _digest_file(path: Path) -> Path:
    return path.with_suffix(".sha256")
