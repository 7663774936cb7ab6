"""Checkpoints: written atomically, verified before use, the last few kept."""

import json
import sys
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from simdistill.support.files import digest, replacing, write_atomically
from simdistill.support.json_text import json_object
from simdistill.support.tensors import read_tensors
from simdistill.training.processes import ALONE, Processes

KEPT = 3


class NoSoundCheckpoint(ValueError):  # noqa: N818
    """A run has no checkpoint that it could continue from: all are damaged, or gone."""


def write_checkpoint(folder: Path, iteration: int, state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
    """Store `state` with `facts` (JSON values) as the newest checkpoint; keeps the two before it.

    The SHA-256 in a file beside it, in the format of `sha256sum -c`, is written last: a checkpoint without it is
    ignored. Raises `OSError` if the disk refuses it; older checkpoints are then intact.
    """
    path = folder / f"{iteration:09d}.safetensors"
    if path.is_dir():  # somebody's, so it is not deleted
        path.rename(path.with_name(f"not-{path.name}"))
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
    """All files of checkpoints in `folder`, newest first, also damaged ones."""
    return sorted((path for path in folder.glob("[0-9]*.safetensors") if not path.is_dir()), reverse=True)


def newest_checkpoint(folder: Path, unfit: Collection[Path] = ()) -> Path | None:
    """The newest sound checkpoint that is not among the `unfit`, or None if there are no checkpoints.

    Prints newer, unsound ones to stderr. Raises `NoSoundCheckpoint` if there is no sound one.
    """
    found = checkpoints(folder)
    for path in (path for path in found if path not in unfit):
        flaw = _flaw(path)
        if flaw is None:
            return path
        _pass_over(path, flaw)
    if found:
        raise NoSoundCheckpoint(f"{folder}: all checkpoints are damaged; start again with a new --out, or --overwrite")
    return None


def restore_newest(
    folder: Path, restore: Callable[[Mapping[str, Tensor]], None], processes: Processes = ALONE
) -> dict[str, Any] | None:
    """Restore the newest sound checkpoint that `restore` takes, and return its facts; None if there are none.

    Raises `NoSoundCheckpoint` if none is sound, `ValueError` if none of the sound ones fits.
    """
    unfit: dict[Path, Exception] = {}
    while True:
        # one process chooses: on a network file system, others may see an outdated folder
        try:
            path = processes.on_main(partial(newest_checkpoint, folder, list(unfit)))
        except ValueError as error:
            if not unfit:
                raise
            why = next(iter(unfit.values()))
            raise ValueError(f"{folder}: do not match this run's configuration ({why})") from error
        if path is None:
            return None
        state, facts = read_checkpoint(path)
        try:
            restore(state)
        except (KeyError, TypeError, ValueError) as error:
            unfit[path] = error
            if processes.is_main:
                _pass_over(path, f"does not match this run's configuration ({error})")
        else:
            return facts


def check_resumable(folder: Path, iteration: int) -> None:
    """Raise `NoSoundCheckpoint` if a run's checkpoints are gone, though its metrics reach this `iteration`."""
    if iteration > 0 and not checkpoints(folder):
        raise NoSoundCheckpoint(
            f"{folder}: has no checkpoints, though the run had reached iteration {iteration}, and would train anew "
            f"from 0; put them back, or start a new run with the settings in its config.toml and another --out"
        )


def all_finite(state: Mapping[str, Tensor]) -> bool:
    """Whether all numbers in `state` are finite."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in state.values())


def _flaw(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        if _digest_file(path).read_text(encoding="utf-8").split()[0] != digest(path):
            return "damaged (its SHA-256 differs)"
        state, facts = read_checkpoint(path)
    except (OSError, IndexError, UnicodeDecodeError):
        return "damaged (its SHA-256 is missing)"
    except ValueError as error:
        return str(error).removeprefix(f"{path}: ")
    if not all_finite(state):
        return "has numbers that are not finite"
    return None if isinstance(facts.get("seconds"), int | float) else "does not say its seconds of training"


def _pass_over(path: Path, flaw: str) -> None:
    print(f"warning: {path}: {flaw}; using the checkpoint before it", file=sys.stderr, flush=True)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read state and facts of a checkpoint; `ValueError` if the file is not one."""
    state, metadata = read_tensors(path)
    try:
        return state, json_object(str(path), metadata["simdistill"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a checkpoint of simdistill") from error


def _digest_file(path: Path) -> Path:
    return path.with_suffix(".sha256")
