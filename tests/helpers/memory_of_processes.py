"""Run by torchrun: the bytes that an iteration takes in a process, replicated and sharded; the first process prints."""

import gc
import json
from pathlib import Path

from memory_of_steps import NETWORKS

from benchmarks.iteration import _kilobytes
from simdistill.config.recipes import Recipe
from simdistill.teachers.teacher import Teacher
from simdistill.training.processes import Processes, joined
from simdistill.training.trainer import DistillationTrainer


def added(name: str, batch: int, shard: bool, processes: Processes) -> int:
    """From before there is a trainer to the highest point of its third iteration."""
    gc.collect()
    before, denoiser = _kilobytes("VmRSS"), NETWORKS[name].make()
    teacher = Teacher(denoiser, denoiser.shape)
    trainer = DistillationTrainer(teacher, Recipe(batch=batch, shard=shard), processes=processes)
    del denoiser, teacher
    for _ in range(2):
        trainer.step()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    trainer.step()
    return 1024 * (_kilobytes("VmHWM") - before)


if __name__ == "__main__":
    with joined("cpu") as (processes, _):
        for shard in (False, True):  # libraries take memory at their first use
            added("mlp", 16, shard, processes)
        found = {
            name: [added(name, NETWORKS[name].batch, shard, processes) for shard in (False, True)]
            for name in ("wide mlp", "wide unet")
        }
        if processes.is_main:
            print(json.dumps(found))
