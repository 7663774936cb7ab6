"""Run by torchrun: one step of every kind of training; the first process stores its gradients, losses and readings."""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from simdistill.recipes import RECIPES, Recipe
from simdistill.teachers.teacher import load_teacher
from simdistill.training.processes import ALONE, Processes, joined
from simdistill.training.sharding import whole
from simdistill.training.trainer import DistillationTrainer

BASE = replace(RECIPES["digits"], batch=12, online_lr=1e-3, generator_lr=1e-3, warmup=0)
KINDS = {
    "plain": BASE,
    "accumulated": replace(BASE, accumulation=3),
    "shared": replace(BASE, share_samples=True),
    "recomputed": replace(BASE, gradient_checkpointing=True),
}


def gradients(recipe: Recipe, processes: Processes = ALONE) -> dict[str, torch.Tensor]:
    """Whole gradients of the second iteration's two updates, its readings, and the average after it."""
    trainer = DistillationTrainer(load_teacher("digits"), recipe, processes=processes)
    trainer.step()
    trainer.readings()
    found: dict[str, torch.Tensor] = {}
    for name, update in {"online": trainer.update_online, "generator": trainer.update_generator}.items():

        def keep(optimizer, *_, name=name):
            grads = [whole(p.grad).flatten().clone() for group in optimizer.param_groups for p in group["params"]]
            found[name] = torch.cat(grads)

        update.optimizer.register_step_pre_hook(keep)
    trainer.step()
    readings = trainer.readings()
    y = list(readings.pop("y").values())
    found["readings"] = torch.tensor([*readings.values(), *y], dtype=torch.float64)
    found["average"] = torch.cat([p.flatten() for p in trainer.snapshot().parameters()])
    return found


if __name__ == "__main__":
    with joined("cpu") as (processes, _):
        everything = {}
        for kind, recipe in KINDS.items():
            for shard in (False, True):
                got = gradients(replace(recipe, shard=shard), processes)
                everything |= {f"{kind} {'sharded' if shard else 'replicated'} {name}": t for name, t in got.items()}
        if processes.leads:
            save_file(everything, Path(sys.argv[1]))
