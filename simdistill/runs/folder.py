"""The folder of a run: its configuration, its metrics, and its results."""

import json
import shlex
import shutil
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from simdistill.config.auto import NAME as AUTO
from simdistill.config.former import FORMER_METRICS, FORMER_SETTINGS, present, present_figures
from simdistill.config.recipes import RECIPES
from simdistill.config.settings import read_toml, to_toml
from simdistill.runs.lock import LOCK, locked
from simdistill.support.files import check_output, is_temporary, remove_leftovers, write_atomically
from simdistill.support.json_text import read_json

UNNAMED = "teacher"
"""The name of a teacher that was given as an object."""


@dataclass(frozen=True)
class RunFolder:
    """A run's folder and its files; written only by the methods below and through the named paths."""

    path: Path

    @property
    def config(self) -> Path:
        """TOML: the settings of the run; usable as `--config`."""
        return self.path / "config.toml"

    @property
    def metrics(self) -> Path:
        """JSON lines: losses, ‖y‖ by noise level, learning rates, and the quality at the milestones."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """A folder with the last few checkpoints: safetensors with all that resuming needs, and their SHA-256."""
        return self.path / "checkpoints"

    @property
    def unmeasured(self) -> Path:
        """A folder with the networks of milestones whose measurement is under way."""
        return self.path / "unmeasured"

    @property
    def measuring(self) -> Path:
        """JSON: with how many samples, seeds and milestones the run is measured, and what a sample costs."""
        return self.path / "measuring.json"

    @property
    def reference(self) -> Path:
        """A .npz: statistics of the teacher's samples, the reference of the metrics where there is no other."""
        return self.path / "reference.npz"

    @property
    def partial(self) -> Path:
        """A folder with what an evaluation under way has measured so far."""
        return self.path / "evaluation.partial"

    @property
    def network(self) -> Path:
        """Safetensors: the EMA of the generator (distillation) or of the teacher (pretraining)."""
        return self.path / "generator.safetensors"

    def ema(self, k: int) -> Path:
        """Safetensors: EMA k of the generator; EMA 0 is `network`."""
        return self.network if k == 0 else self.path / f"generator-{k}.safetensors"

    @property
    def start(self) -> Path:
        """Safetensors: the proxy network of a teacher without weights."""
        return self.path / "start.safetensors"

    @property
    def teacher(self) -> Path:
        """JSON: the name and the fingerprint of the teacher."""
        return self.path / "teacher.json"

    @property
    def stopped(self) -> Path:
        """A marker file: the run was stopped by a signal and can be resumed."""
        return self.path / "stopped"

    @property
    def evaluation(self) -> Path:
        """JSON: the metrics of teacher, student and undistilled start."""
        return self.path / "evaluation.json"

    @property
    def report(self) -> Path:
        """HTML: the report of the run on one page."""
        return self.path / "report.html"

    def picture(self, name: str) -> Path:
        """PNG: samples of "teacher", "student", "undistilled", of the first two "side-by-side", or of an iteration."""
        return self.path / "images" / f"{name}.png"

    @classmethod
    @contextmanager
    def begin(cls, path: Path, config: Mapping[str, Any], overwrite: bool = False) -> Generator["RunFolder"]:
        """Create a run's folder with its configuration, and hold its lock in the block.

        Raises `ValueError` if `path` is not empty, unless `overwrite`, or if another process holds its lock.
        """
        check_new_run(path, overwrite)
        with locked(path):
            _check_free(path, overwrite)  # another process may have been faster
            for old in path.iterdir():
                if old.name != LOCK:
                    shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
            run = cls(path)
            head = f"# repeated by: {repeating(config, run.config)}\n" if config["verb"] == "distill" else ""
            write_atomically(run.config, (head + to_toml(config)).encode())
            yield run

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any], overwrite: bool = False) -> "RunFolder":
        """Create a run's folder with its configuration; raises as `begin` does."""
        with cls.begin(path, config, overwrite) as run:
            return run

    @contextmanager
    def locked(self) -> Generator[None]:
        """Hold the lock of an existing run in the block, without what killed processes left half-written in it.

        Raises `ValueError` if another process holds it.
        """
        with locked(self.path):
            for folder in (self.path, *(one for one in self.path.iterdir() if one.is_dir())):
                remove_leftovers(folder)
            yield

    @classmethod
    def with_config(cls, path: Path, config: Mapping[str, Any]) -> "RunFolder":
        """Open or create a run's folder with this configuration; other settings in it do not matter.

        Raises `ValueError` if an existing folder has other values, or cannot be resumed.
        """
        if not path.is_dir() or not content_of(path):
            return cls.create(path, config)
        run = cls(path)
        if not run.config.is_file():
            raise damaged(path, "no config.toml in it")
        try:
            found = run.configuration()
        except ValueError as error:
            raise damaged(path, str(error)) from error
        if {key: found.get(key) for key in config} != config:
            raise ValueError(f"{path}: was made with other settings; delete it, or give another --out")
        return run

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Open an existing run's folder; `ValueError` if `path` is not one."""
        if not (path / "config.toml").is_file():
            raise ValueError(
                f"{path}: not a run's folder (no config.toml in it); runs are made by `simdistill distill`"
            )
        run = cls(path)
        run.configuration()
        return run

    def configuration(self) -> dict[str, Any]:
        """The settings in `config`, by their current names."""
        return present(read_toml(self.config), FORMER_SETTINGS)

    def change(self, name: str, value: Any, note: str) -> None:
        """Change one setting in `config`, below a comment with the `note`."""
        settings = tomlkit.parse(self.config.read_text(encoding="utf-8"))
        settings[name] = value
        write_atomically(self.config, f"# {note}\n{tomlkit.dumps(settings)}".encode())

    def log_metrics(self, values: Mapping[str, Any]) -> None:
        """Append one line to the metrics."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """The metrics, without damaged lines."""
        return [_present(record) for record in self._lines() if record is not None]

    def _lines(self) -> list[dict[str, Any] | None]:
        """The lines of the metrics; None in place of a damaged one."""
        if not self.metrics.is_file():
            return []
        return [_record(line) for line in self.metrics.read_bytes().splitlines()]

    def read_evaluation(self) -> dict[str, Any]:
        """The metrics in `evaluation`; empty if there is no such file, `ValueError` if it is damaged."""
        return read_figures(self.evaluation) if self.evaluation.exists() else {}

    @property
    def iteration(self) -> int:
        """The last iteration in the metrics; 0 without any."""
        return max((record["iteration"] for record in self.read_metrics()), default=0)

    def forget_after(self, iteration: int) -> list[dict[str, Any]]:
        """Drop the metrics of iterations that a resumed run will repeat; returns the others.

        Damaged lines are dropped, too; if there are others than a last one, which a kill may cut short, it is said.
        """
        if None in self._lines()[:-1]:
            print(f"warning: {self.metrics}: its damaged lines are left out", file=sys.stderr, flush=True)
        kept = [record for record in self.read_metrics() if record["iteration"] <= iteration]
        write_atomically(self.metrics, "".join(json.dumps(record) + "\n" for record in kept).encode())
        return kept


def repeating(config: Mapping[str, Any], path: Path) -> str:
    """The command that repeats the distillation whose settings `config` are in the file `path`.

    They have the place of the recipe's, which is named after the teacher: for one's own it is auto, which then reads
    nothing off it. A teacher that was an object has to be named.
    """
    teacher = config.get("teacher")
    name = next((name for name, recipe in RECIPES.items() if recipe.teacher and recipe.teacher == teacher), AUTO)
    named = " --teacher package.module:function" if teacher == UNNAMED else ""
    return f"simdistill distill {name} --config {shlex.quote(path.as_posix())} --out NEW_FOLDER{named}"


def read_figures(path: Path) -> dict[str, Any]:
    """The metrics in a JSON file, which may be of version 0.1; `ValueError` if it is damaged."""
    return present_figures(read_json(path))


def _record(line: bytes) -> dict[str, Any] | None:
    """A line of the metrics; None if it is damaged."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    sound = isinstance(record, dict) and isinstance(record.get("iteration"), int)
    return record if sound else None


def _present(record: dict[str, Any]) -> dict[str, Any]:
    """A record of version 0.1 in the current form; current ones unchanged."""
    if "quality" in record:
        return {**record, "quality": present_figures(record["quality"])}
    if "generator_loss" not in record or "loss" not in record:
        return record
    levels = {"levels": {"y_norm": record.pop("y")}} if "y" in record else {}
    return present(record, FORMER_METRICS) | levels


def damaged(path: Path, why: str) -> ValueError:
    """The error for a folder that a repeated command cannot resume."""
    remedy = "delete it and repeat the command, or give another --out"
    return ValueError(f"{path}: damaged or not a run's folder; {remedy} ({why})")


def content_of(path: Path) -> list[Path]:
    """What is in a folder, besides its lock and what killed processes left of new files."""
    return [one for one in path.iterdir() if one.name != LOCK and not is_temporary(one)]


def check_new_run(path: Path, overwrite: bool) -> None:
    """Raise `ValueError` unless `path` can become a new run's folder, as `RunFolder.begin` does: to be asked first."""
    _check_free(path, overwrite)
    check_output(path, folder=True)


def _check_free(path: Path, overwrite: bool) -> None:
    """Raise `ValueError` unless `path` can become a new run's folder."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"--out = {path}: is a file; give a folder")
    if path.exists() and content_of(path):
        verb = verb_of(path)
        if verb is None:
            raise ValueError(f"--out = {path}: exists, and is not a run's folder; give another --out")
        if not overwrite:
            resume = ", or --resume the run" if verb in ("distill", "pretrain") else ""
            raise ValueError(
                f"--out = {path}: exists; give another --out, {'' if resume else 'or '}--overwrite it{resume}"
            )


def verb_of(path: Path) -> str | None:
    """The command that made a run's folder; None for any other folder: other programs have a config.toml, too."""
    try:
        verb = read_toml(path / "config.toml").get("verb")
    except ValueError:
        return None
    return verb if verb in ("distill", "pretrain", "convert") else None
