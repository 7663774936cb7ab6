"""The fingerprint of a run's teacher: whoever resumes or evaluates the run with another teacher is told."""

import hashlib
import json
import zlib
from typing import Any

import torch
from torch import Tensor, nn

from simdistill.runs.folder import RunFolder
from simdistill.support.files import write_atomically
from simdistill.support.json_text import read_json


def fingerprint(denoiser: object) -> str | None:
    """Sixteen hexadecimal digits of all weights and buffers by name; None for a function, which has none.

    SHA-256 of each tensor's name, type, shape and CRC-32, which takes a second for a billion bytes.
    """
    tensors = _tensors(denoiser)
    if not tensors:
        return None
    sha256 = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        values: Any = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        sha256.update(f"{name} {tensor.dtype} {list(tensor.shape)} {zlib.crc32(values):08x}\n".encode())
    return sha256.hexdigest()[:16]


def check_teacher(run: RunFolder, name: str, denoiser: object) -> None:
    """Note the fingerprint of a new run's teacher, `name`; raise `ValueError` if the run has another's.

    A run of an older version, which has none, takes that of the first teacher that it is resumed with.
    """
    if not run.teacher.exists():
        found = {"teacher": name, "fingerprint": fingerprint(denoiser)}
        return write_atomically(run.teacher, json.dumps(found).encode())
    differs = other_teacher(run, name, denoiser)
    if differs:
        raise ValueError(f"{differs}; give that one, or start a new run")
    return None


def other_teacher(run: RunFolder, name: str, denoiser: object) -> str:
    """In what the teacher `name` is another than the run's; "" if it is the same, or the run has no fingerprint.

    Raises `ValueError` if the run's file of it is damaged.
    """
    if not run.teacher.exists():
        return ""
    try:
        known = read_json(run.teacher)
        began, own = known["teacher"], known["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{run.teacher}: damaged; delete it to go on with whatever teacher is given") from error
    found = fingerprint(denoiser)
    if own == found:
        return ""
    return (
        f"--teacher = {name}: has other weights (fingerprint {found}) than the teacher that {run.path} began with, "
        f"{began} (fingerprint {own})"
    )


def _tensors(denoiser: object) -> dict[str, Tensor]:
    """The tensors of a module, or the attributes of another object that are tensors, such as an exact density's."""
    named = denoiser.state_dict() if isinstance(denoiser, nn.Module) else getattr(denoiser, "__dict__", {})
    return {name: value for name, value in named.items() if isinstance(value, Tensor) and not value.is_meta}
