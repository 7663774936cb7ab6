"""What an evaluation has measured so far, in files, so that one that was stopped goes on where it was."""

import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from simdistill.evaluation.metrics import Features
from simdistill.support.files import replacing, write_atomically

WORTH_KEEPING = 0.5  # seconds that something took; what takes less is measured again


@dataclass(frozen=True)
class Partial:
    """Partial results in a `folder`, which is deleted at the end; without one, nothing is kept.

    `of` says what is measured: results in the folder that are of something else are discarded.
    """

    folder: Path | None = None
    of: str = ""

    def prepare(self) -> None:
        """Empty the folder, unless it has results of the same."""
        if self.folder is not None:
            about = self.folder / "of.txt"
            if self.folder.exists() and not (about.is_file() and about.read_bytes() == self.of.encode()):
                shutil.rmtree(self.folder)
            if not about.exists():
                write_atomically(about, self.of.encode())

    def features(self, name: str, rows: range) -> tuple[Features, float] | None:
        """The features of those rows of `name`, and the seconds that drawing their samples took; None if not kept."""
        if self.folder is None:
            return None
        try:
            with np.load(self._part(name, rows), allow_pickle=False) as file:
                return torch.from_numpy(file["features"]), float(file["seconds"])
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):  # none, or damaged
            return None

    def keep_features(self, name: str, rows: range, features: Features, seconds: float) -> None:
        """Keep the features of those rows, if they took long."""
        if self.folder is not None and seconds >= WORTH_KEEPING:
            with replacing(self._part(name, rows)) as temporary, temporary.open("wb") as file:
                np.savez(file, features=features.float().cpu().numpy(), seconds=np.float64(seconds))

    def figures(self, name: str) -> dict[str, float] | None:
        """The figures of `name`; None if not kept."""
        if self.folder is None:
            return None
        try:
            found = json.loads((self.folder / f"{name}.json").read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def keep_figures(self, name: str, figures: Mapping[str, float], seconds: float) -> None:
        """Keep the figures instead of the features that they were computed from, if they took long."""
        if self.folder is not None and seconds >= WORTH_KEEPING:
            write_atomically(self.folder / f"{name}.json", json.dumps(figures).encode())
            for path in self.folder.glob(f"{name}.*.npz"):
                path.unlink(missing_ok=True)

    def finish(self) -> None:
        """Delete everything: the result is stored elsewhere."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _part(self, name: str, rows: range) -> Path:
        assert self.folder is not None
        return self.folder / f"{name}.{rows.start:09d}-{rows.stop:09d}.npz"


NOTHING_KEPT = Partial()
