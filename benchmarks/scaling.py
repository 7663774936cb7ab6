"""Weak scaling: iterations per second of two processes with a batch each, over those of one process.

Run under torchrun as `benchmarks/scaling.py replicated|sharded BATCH ITERATIONS`, with one thread per process.
"""

import json
import sys
import time
from dataclasses import replace
from typing import Any

from benchmarks.machine import finish, start
from benchmarks.networks import NETWORKS
from benchmarks.tables import Table, spread
from simdistill.config.recipes import Recipe
from simdistill.teachers.teacher import Teacher
from simdistill.training.processes import joined
from simdistill.training.trainer import DistillationTrainer

BATCH = 8  # per process
ROUNDS, ITERATIONS = 3, 6
KINDS = ["replicated", "sharded"]


def measure(quick: bool = False) -> dict[str, Any]:
    """Seconds per iteration of the U-Net, by kind and number of processes, in turns.

    "apart" are two unconnected processes: what the machine itself allows.
    """
    rounds, iterations = (1, 1) if quick else (ROUNDS, ITERATIONS)
    seconds: dict[str, dict[str, list[float]]] = {kind: {"1": [], "2": [], "apart": []} for kind in KINDS}
    for _ in range(rounds):
        for kind, own in seconds.items():
            own["1"].append(finish(_started(kind, 1, iterations)))
            own["2"].append(finish(_started(kind, 2, iterations)))
            apart = [_started(kind, 1, iterations) for _ in range(2)]
            own["apart"].append(max(finish(process) for process in apart))
    return {"batch": BATCH, "seconds": seconds}


def tables(measured: dict[str, Any]) -> list[Table]:
    """One table: the speed of two processes, and of two unconnected ones, over that of one."""
    rows = []
    for kind, own in measured["seconds"].items():
        for others, what in (("2", "two processes"), ("apart", "two unconnected ones")):
            ratios = [one / two for one, two in zip(own["1"], own[others], strict=True)]
            rows.append([f"{kind}, {what}", spread(own["1"]), spread(own[others]), spread(ratios)])
    title = f"Weak scaling of the U-Net, batch {measured['batch']} and one thread per process"
    return [Table("scaling", title, ["processes", "s per iteration, one", "s per iteration, two", "efficiency"], rows)]


def seconds_per_iteration(kind: str, batch: int, iterations: int) -> float | None:
    """Seconds per iteration, as measured by the first process; None in the others."""
    with joined("cpu") as (processes, _):
        denoiser = NETWORKS["unet"].make()
        recipe = replace(Recipe(), batch=batch * processes.world_size, shard=kind == "sharded")
        trainer = DistillationTrainer(Teacher(denoiser, denoiser.shape), recipe, processes=processes)
        for _ in range(2):
            trainer.step()
        began = time.perf_counter()
        for _ in range(iterations):
            trainer.step()
        trainer.metrics()  # waits for the other
        return (time.perf_counter() - began) / iterations if processes.is_main else None


def _started(kind: str, count: int, iterations: int) -> Any:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    return start([*torchrun, "-m", "benchmarks.scaling", kind, str(BATCH), str(iterations)], threads=1)


if __name__ == "__main__":
    answer = seconds_per_iteration(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    if answer is not None:
        print(json.dumps(answer))
