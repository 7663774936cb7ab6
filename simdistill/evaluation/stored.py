"""Reference statistics in files: EDM's `.npz` of `mu` and `sigma`, and what the other metrics need.

| array | shape | meaning |
|---|---|---|
| `mu`, `sigma` | `[d]`, `[d, d]`, float64 | mean and covariance of the features, as in EDM's files |
| `features` | `[≤ 10,000, d]`, float32 | features of random images, for all metrics but the Fréchet distance |
| `images` | int64 | number of images |
| `held_out_mu`, … | | the same four for the held-out part of the data, if it has one |
| `extractor`, `data` | text | feature extractor, and images |
| `inputs` | text | identifies the inputs, so that the same statistics are not computed twice |
"""

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simdistill.evaluation.metrics import Moments
from simdistill.evaluation.statistics import Statistics
from simdistill.support.checks import require
from simdistill.support.files import replacing
from simdistill.support.zip_files import check_density

HELD_OUT = "held_out_"
TEXTS = ("extractor", "data", "inputs")


@dataclass(frozen=True)
class Stored:
    """The statistics in a file and their origin, which EDM's own files do not tell."""

    statistics: Statistics
    held_out: Statistics | None = None
    extractor: str | None = None
    data: str | None = None
    inputs: str | None = None


KNOWN = {"mu", "sigma", "images", "features", *TEXTS}


def write_statistics(path: Path, stored: Stored) -> None:
    """Write statistics with their origin to a `.npz` that EDM's evaluation also reads, atomically."""
    arrays = _as_arrays(stored.statistics, "")
    if stored.held_out is not None:
        arrays |= _as_arrays(stored.held_out, HELD_OUT)
    arrays |= {name: text for name in TEXTS if (text := getattr(stored, name)) is not None}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def read_statistics(path: Path) -> Stored:
    """The statistics in a `.npz` of this package or EDM; nothing in it is executed.

    Raises `ValueError` if the file is missing, damaged, or has no mean and covariance of matching shapes.
    """
    if not path.is_file():
        raise ValueError(
            f"reference = {path}: no such file; `simdistill stats DATA --out {quote(str(path))}` makes one"
        )
    arrays = _arrays(path)
    texts = {name: str(arrays[name]) for name in TEXTS if name in arrays}
    held_out = _statistics(path, arrays, HELD_OUT) if f"{HELD_OUT}mu" in arrays else None
    return Stored(_statistics(path, arrays, ""), held_out, **texts)


def _as_arrays(statistics: Statistics, prefix: str) -> dict[str, Any]:
    arrays: dict[str, Any] = {
        "mu": statistics.moments.mean.numpy(),
        "sigma": statistics.moments.covariance.numpy(),
        "images": np.int64(statistics.images),
    }
    if statistics.features is not None:
        arrays["features"] = statistics.features.float().numpy()
    return {f"{prefix}{name}": array for name, array in arrays.items()}


def _statistics(path: Path, arrays: Mapping[str, Any], prefix: str) -> Statistics:
    mean, covariance, features = (_numbers(path, f"{prefix}{name}", arrays) for name in ("mu", "sigma", "features"))
    if mean is None or covariance is None:
        missing = f"{prefix}mu" if mean is None else f"{prefix}sigma"
        raise ValueError(f"{path}: arrays = {sorted(arrays)}: must include mu and sigma; {missing} is missing")
    d = mean.numel()
    require(mean.ndim == 1, f"{path}: shape of {prefix}mu", list(mean.shape), "[dimensions]")
    square = f"[{d}, {d}], as mu has {d}"
    require(covariance.shape == (d, d), f"{path}: shape of {prefix}sigma", list(covariance.shape), square)
    if features is not None:
        fits = features.ndim == 2 and features.shape[1] == d
        require(fits, f"{path}: shape of {prefix}features", list(features.shape), f"[images, {d}], as mu has {d}")
        features = features.float()
    return Statistics(int(arrays.get(f"{prefix}images", 0)), Moments(mean, covariance), features)


def _arrays(path: Path) -> Mapping[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            with zipfile.ZipFile(path) as archive:
                for entry in archive.infolist():
                    check_density("its arrays", entry)
            return {name: file[name] for name in file.files if name.removeprefix(HELD_OUT) in KNOWN}
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile, pickle.PickleError) as error:
        remedy = "make it by `simdistill stats`, or download it again"
        raise ValueError(f"{path}: not an intact .npz of numbers ({_flaw(path, error)}); {remedy}") from error


def _flaw(path: Path, error: Exception) -> str:
    """What is wrong with a file, instead of NumPy's advice to execute what is in it."""
    if "pickle" in str(error).lower():
        packed = zipfile.is_zipfile(path)
        return "it holds Python objects, which are not read" if packed else "it is no .npz at all"
    return " ".join(str(error).split())


def _numbers(path: Path, name: str, arrays: Mapping[str, Any]) -> Tensor | None:
    """The float64 tensor of that name, None if there is none; `ValueError` if it is not of finite numbers."""
    if name not in arrays:
        return None
    kind = arrays[name].dtype
    require(kind.kind == "f", f"{path}: type of {name}", str(kind), "floating-point numbers")
    numbers = torch.from_numpy(arrays[name]).double()
    require(bool(numbers.isfinite().all()), f"{path}: {name}", "not finite", "finite in every entry; make it again")
    return numbers
