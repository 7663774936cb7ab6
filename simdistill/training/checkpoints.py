"""Checkpoints: written atomically, verified before use, the last few kept."""

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
    """Store `state` with `facts` (JSON values) as the newest checkpoint; keeps the two before it.

    The SHA-256 in a file beside it, in the format of `sha256sum -c`, is written last: a checkpoint without it is
    ignored. Raises `OSError` if the disk refuses it; older checkpoints are then intact.
    """
    path = folder / f"{iteration:09d}.safetensors"
    try:
        with replacing(path) as temporary:
            tensors = {name: tensor.contiguous() for name, tensor in state.items()}
            save_file(tensors, temporary, {"simdistill": json.dumps(facts)})
            sha256 = digest(temporary)
            _digest_file(path).unlink(missing_ok=True)  # of a checkpoint that is replaced after a rollback
    except SafetensorError as error:  # how it reports a full disk
        raise OSError(f"{path}: could not be written ({error})") from error
    write_atomically(_digest_file(path), f"{sha256}  {path.name}\n".encode())
    found = checkpoints(folder)
    here = found.index(path)
    for other in found[:here] + found[here + KEPT :]:  # newer ones are damaged, or were rolled back
        _digest_file(other).unlink(missing_ok=True)  # first: the checkpoint is then ignored
        other.unlink()
    return path


def checkpoints(folder: Path) -> list[Path]:
    """All checkpoints in `folder`, newest first, also damaged ones."""
    return sorted(folder.glob("[0-9]*.safetensors"), reverse=True)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest intact checkpoint, or None if there are no checkpoints.

    Prints newer, damaged ones to stderr. Raises `NoSoundCheckpoint` if all are damaged.
    """
    found = checkpoints(folder)
    for path in found:
        if _is_sound(path):
            return path
        what = "damaged (its SHA-256 differs or is missing)"
        print(f"warning: {path}: {what}; using the checkpoint before it", file=sys.stderr, flush=True)
    if found:
        raise NoSoundCheckpoint(f"{folder}: all checkpoints are damaged; start again with a new --out, or --overwrite")
    return None


def all_finite(state: Mapping[str, Tensor]) -> bool:
    """Whether all numbers in `state` are finite."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in state.values())


def _is_sound(path: Path) -> bool:
    try:
        return _digest_file(path).read_text(encoding="utf-8").split()[0] == digest(path)
    except (OSError, IndexError, UnicodeDecodeError):
        return False


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read state and facts of a checkpoint; `ValueError` if the file is not one."""
    state, metadata = read_tensors(path)
    try:
        return state, dict(json.loads(metadata["simdistill"]))
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: not a checkpoint of simdistill") from error


def _digest_file(path: Path) -> Path:
    return path.with_suffix(".sha256")
