"""The fingerprint of a run's teacher: whoever resumes the run with another teacher is told."""

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
    found = {"teacher": name, "fingerprint": fingerprint(denoiser)}
    if not run.teacher.exists():
        return write_atomically(run.teacher, json.dumps(found).encode())
    try:
        known = read_json(run.teacher)
        began, own = known["teacher"], known["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{run.teacher}: damaged; delete it to resume with whatever teacher is given") from error
    if own != found["fingerprint"]:
        raise ValueError(
            f"--teacher = {name}: has other weights (fingerprint {found['fingerprint']}) than the teacher that "
            f"{run.path} began with, {began} (fingerprint {own}); give that one, or start a new run"
        )
    return None


def _tensors(denoiser: object) -> dict[str, Tensor]:
    """The tensors of a module, or the attributes of another object that are tensors, such as an exact density's."""
    named = denoiser.state_dict() if isinstance(denoiser, nn.Module) else getattr(denoiser, "__dict__", {})
    return {name: value for name, value in named.items() if isinstance(value, Tensor) and not value.is_meta}
