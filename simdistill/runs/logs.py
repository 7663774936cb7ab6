"""Logging the metrics and images of a run to TensorBoard, Weights & Biases or trackio, besides its folder."""

import contextlib
import importlib.util
import os
import secrets
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from simdistill.runs.folder import RunFolder
from simdistill.support.checks import require
from simdistill.support.files import write_atomically

PROJECT = "simdistill"
WANDB_LAST_UPLOAD = 300.0  # seconds to wait for the last uploads at the end of a run


@runtime_checkable
class Log(Protocol):
    """A service that receives the metrics and images of a run."""

    def log_metrics(self, values: Mapping[str, Any]) -> None:
        """Send the numbers of one metrics record; a record with "rollback" invalidates later iterations."""
        ...

    def picture(self, name: str, iteration: int, path: Path) -> None:
        """Send the PNG in `path`; images of the same `name` form a series."""
        ...

    def close(self) -> None:
        """Send what is left, and close the service."""
        ...


def open_logs(names: Sequence[str], run: RunFolder) -> list[Log]:
    """Open these services for a new or a resumed run; any thread may use them.

    No service stops a training, since the run's folder has everything: one that does not start is left out, and one
    that fails later is still tried, each with a line on stderr. Raises `ValueError` as `check_logs` does.
    """
    check_logs(names)
    return [log for name in names for log in _started(name, run)]


def check_logs(names: Sequence[str]) -> None:
    """Raise `ValueError` if one of `names` is unknown or repeated, or if its library is not installed."""
    for name in names:
        require(name in SERVICES, "--log", name, f"one of {', '.join(SERVICES)}")
        require(list(names).count(name) == 1, "--log", name, "given once")
        if getattr(importlib.util.find_spec(name), "origin", None) is None:  # missing, or a folder such as ./wandb
            raise ValueError(f'--log {name}: {name} is missing: pip install "simdistill[{name}]"')


def flatten(values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers in nested mappings by their path, such as "quality/frechet/mean"; without texts, lists and bools."""
    flat: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}/{below}": number for below, number in flatten(value).items()}
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat[name] = value
    return flat


class TensorBoardLog:
    """Event files in the run's folder; iterations that a run repeats after a rollback replace the old ones."""

    def __init__(self, run: RunFolder) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._run, self._create = run, SummaryWriter
        self._writer: SummaryWriter | None = None

    def log_metrics(self, values: Mapping[str, Any]) -> None:
        """Write the numbers; after a rollback, readers drop later iterations."""
        iteration = values["iteration"]
        writer = self._from(iteration + 1) if "rollback" in values else self._at(iteration)
        for name, number in _series(values).items():
            writer.add_scalar(name, number, iteration)
        writer.flush()

    def picture(self, name: str, iteration: int, path: Path) -> None:
        """Write the picture's pixels."""
        pixels = np.asarray(Image.open(path, formats=["PNG"]).convert("RGB"))
        self._at(iteration).add_image(name, pixels, iteration, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()

    def _at(self, iteration: int) -> Any:
        # opened with the first record: only then are the metrics of a resumed run truncated
        if self._writer is None:
            kept = [record["iteration"] for record in self._run.read_metrics() if record["iteration"] < iteration]
            first = max(kept, default=-1) + 1
            self._from(first).add_text("config", f"```toml\n{self._run.config.read_text(encoding='utf-8')}```", first)
        return self._writer

    def _from(self, first: int) -> Any:
        """A writer that purges everything from the iteration `first` on."""
        self.close()
        self._writer = self._create(str(self._run.path / "tensorboard"), purge_step=first)
        return self._writer


class WandbLog:
    """A run on Weights & Biases, by iteration. It cannot delete points: after a rollback, curves overlap."""

    def __init__(self, run: RunFolder) -> None:
        import wandb

        self._image = wandb.Image
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.path.resolve().name,
            id=_identity(run),
            resume="allow",
            reinit="create_new",  # do not touch a run of the calling program
            dir=run.path,
            config=run.configuration(),
            settings=wandb.Settings(finish_timeout=WANDB_LAST_UPLOAD),
        )
        self._run.define_metric("iteration")
        self._run.define_metric("*", step_metric="iteration")

    def log_metrics(self, values: Mapping[str, Any]) -> None:
        """Send the numbers."""
        self._run.log({"iteration": values["iteration"], **_series(values)})

    def picture(self, name: str, iteration: int, path: Path) -> None:
        """Send the picture."""
        self._run.log({"iteration": iteration, name: self._image(str(path))})

    def close(self) -> None:
        """Wait for the last uploads, up to `WANDB_LAST_UPLOAD`."""
        self._run.finish()


class TrackioLog:
    """A run in trackio's local database or on its server. It cannot delete points: after a rollback, curves overlap."""

    def __init__(self, run: RunFolder) -> None:
        import trackio

        self._image, self._finish = trackio.Image, trackio.finish
        name = f"{run.path.resolve().name}-{_identity(run)}"
        with contextlib.redirect_stdout(sys.stderr):  # its messages are not results
            self._run = trackio.init(PROJECT, name=name, resume="allow", embed=False, config=run.configuration())

    def log_metrics(self, values: Mapping[str, Any]) -> None:
        """Send the numbers."""
        self._run.log(_series(values), step=values["iteration"])

    def picture(self, name: str, iteration: int, path: Path) -> None:
        """Send the picture."""
        self._run.log({name: self._image(path)}, step=iteration)

    def close(self) -> None:
        """Wait for the last writes."""
        with contextlib.redirect_stdout(sys.stderr):
            self._finish()


SERVICES: dict[str, Callable[[RunFolder], Log]] = {
    "tensorboard": TensorBoardLog,
    "wandb": WandbLog,
    "trackio": TrackioLog,
}
"""The services by the names of their libraries."""


class _Steady:
    """A thread-safe log whose failures are reported once and not raised."""

    def __init__(self, name: str, log: Log) -> None:
        self._name, self._log = name, log
        self._lock, self._reported = threading.Lock(), False

    def log_metrics(self, values: Mapping[str, Any]) -> None:
        self._try(self._log.log_metrics, values)

    def picture(self, name: str, iteration: int, path: Path) -> None:
        self._try(self._log.picture, name, iteration, path)

    def close(self) -> None:
        self._try(self._log.close)

    def _try(self, call: Callable[..., None], *arguments: Any) -> None:
        with self._lock:
            try:
                call(*arguments)
            except Exception as error:
                if not self._reported:
                    _report(self._name, "failed and misses some metrics", error)
                self._reported = True


def _started(name: str, run: RunFolder) -> list[Log]:
    """The service in a list; an empty list if it does not start."""
    try:
        return [_Steady(name, SERVICES[name](run))]
    except Exception as error:
        _report(name, "did not start", error)
        return []


def _report(name: str, what: str, error: Exception) -> None:
    reason = " ".join(str(error).split()) or type(error).__name__
    print(f"warning: --log {name} {what} ({reason}); the run's folder has everything", file=sys.stderr, flush=True)


def _series(values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers to plot over the iteration."""
    return {name: number for name, number in flatten(values).items() if name != "iteration"}


def _identity(run: RunFolder) -> str:
    """A unique id of the run, kept in its folder."""
    path = run.path / "log-id.txt"
    if not path.exists():
        write_atomically(path, secrets.token_hex(8).encode())
    return path.read_text(encoding="utf-8").strip()
