"""Run by torchrun: one step of every kind of training; the first process stores its gradients, losses and metrics."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file

from simdistill.config.recipes import RECIPES, Recipe
from simdistill.teachers.loading import load_teacher
from simdistill.training.processes import ALONE, Processes, joined
from simdistill.training.sharding import gathered
from simdistill.training.trainer import DistillationTrainer

# psi moves by next to nothing before theta does, for rounding turns signs in Adam's first step
BASE = replace(RECIPES["digits"], batch=65, online_lr=1e-8, warmup=0, share_samples=False)  # 65: unequal parts
KINDS = {
    "plain": BASE,
    "accumulated": replace(BASE, batch=66, gradient_accumulation=3),
    "shared": replace(BASE, share_samples=True),
    "recomputed": replace(BASE, gradient_checkpointing=True),
    "compiled": replace(BASE, compile=True),
    "several": replace(BASE, online_steps=2, online_lr=1e-4),
}


def gradients(recipe: Recipe, processes: Processes = ALONE) -> dict[str, torch.Tensor]:
    """Whole gradients of the last update of either kind in one step, the metrics, and the generator after it."""
    trainer = DistillationTrainer(load_teacher("digits"), recipe, start=moved_teacher(), processes=processes)
    found: dict[str, torch.Tensor] = {}
    for name, step in trainer.steps.items():

        def keep(optimizer, *_, name=name):
            parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            grads = [gathered(p.grad).flatten().clone() for p in parameters]
            found[name] = torch.cat(grads)

        step.optimizer.register_step_pre_hook(keep)
    trainer.step()
    metrics = trainer.metrics()
    levels = [mean for means in metrics.pop("levels").values() for mean in means.values()]
    found["metrics"] = torch.tensor([*metrics.values(), *levels], dtype=torch.float64)
    found["average"] = torch.cat([p.flatten() for p in trainer.snapshot().parameters()])
    return found


def moved_teacher() -> torch.nn.Module:
    """A start beside the teacher, so that y is not zero to the last bit."""
    start, rng = load_teacher("digits").denoiser.requires_grad_(True), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in start.parameters():
            p.add_(0.01 * torch.randn(p.shape, generator=rng))
    start.register_parameter("idle", torch.nn.Parameter(torch.ones(3)))  # as augmentation labels' weights often are
    return start


if __name__ == "__main__":
    torch.compile = partial(torch.compile, backend="aot_eager")  # without the generated code, which takes minutes
    with joined("cpu") as (processes, _):
        everything = {}
        for kind, recipe in KINDS.items():
            for shard in (False, True):
                got = gradients(replace(recipe, shard=shard), processes)
                everything |= {f"{kind} {'sharded' if shard else 'replicated'} {name}": t for name, t in got.items()}
        if processes.is_main:
            save_file(everything, Path(sys.argv[1]))
