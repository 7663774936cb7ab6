"""What test_evaluating lets one process, and two, compute: reference statistics, and the figures of a run."""

import json
import sys
from pathlib import Path

import torch

from simdistill.teachers.loading import load_teacher
from simdistill.training.processes import joined
from simdistill.workflows.evaluating import evaluate_run
from simdistill.workflows.statistics import store_statistics


def compute(data: str, run: Path, out: Path, batch: int = 500) -> None:
    """Write statistics to `out`/ref.npz and figures to `out`/figures.json, for each process those that it has."""
    with joined("cpu") as (processes, _):
        _, notes = store_statistics(data, out / "ref.npz", "pixels", processes=processes)
        (out / f"notes-{processes.rank}.json").write_text(json.dumps(None if notes is None else notes.counts()))
        reference = str(out / "ref.npz")
        figures = evaluate_run(run, load_teacher("digits"), 43, 2, "cpu", reference, "pixels", batch, processes)
        (out / f"figures-{processes.rank}.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    torch.set_num_threads(1)
    compute(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
