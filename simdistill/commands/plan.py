"""`simdistill plan`: what a distillation would need; starts nothing."""

import json
import sys
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table

from simdistill.commands.auto import auto_options, is_auto
from simdistill.commands.settings import Distill, distill_options
from simdistill.config.auto import NAME
from simdistill.config.recipes import Recipe
from simdistill.config.settings import to_toml
from simdistill.support.bar import duration, progress_bar
from simdistill.workflows.planning import CONVOLUTIONS_SHARE, PRODUCTS_SHARE, Outlook, Plan, plan
from simdistill.workflows.ranges import NEGLIGIBLE

ABOUT = """Print what `simdistill distill` with the same options would need; start nothing.

- Prints the settings, the memory of each GPU by component, the operations per
  iteration, and the hours on named GPUs. No GPU is needed.
- Recipes for EDM's and PixArt's published teachers need no --teacher: their
  architectures are known."""


def run(words: Sequence[str]) -> None:
    """`simdistill plan RECIPE …` or `simdistill plan --teacher X`."""
    if is_auto(words):
        return print_plan(NAME, auto_options(words, "plan", ABOUT).options)
    name, options = distill_options(words, "plan", ABOUT)
    return print_plan(name, options)


def print_plan(name: str, options: Distill) -> None:
    """Print the plan of the recipe `name` with the settings of `options`, as tables or as JSON."""
    recipe = options.settings
    with progress_bar("simulating an iteration on tensors without data"):
        made = plan(name, recipe, options.out_of(name), options.gpu, options.gpus)
    if options.json:
        return print(json.dumps(made.as_mapping()))
    if not torch.cuda.is_available():
        print(f"# {_here(made)}")
    print(f"# would write {made.out}; {made.parameters:,} parameters per network; teacher: {made.teacher}")
    print(to_toml(made.recipe))
    for setting, share in made.outside_range.items():
        option, done = setting.replace("_", "-"), _done(share, recipe)
        print(f"{option}: {share:.2%} of its levels are outside the teacher's range{done}")
    console = Console(file=sys.stdout, soft_wrap=True)
    passes = made.flops_per_iteration / (made.flops_per_forward_pass * recipe.batch)
    console.print(
        f"{_operations(made.flops_per_iteration)} per iteration: {passes:.1f} forward passes of "
        f"{_operations(made.flops_per_forward_pass)} for each of {recipe.batch} samples\n"
    )
    console.print(_memory(made))
    console.print(_hours(made, recipe))
    for what, shares in (("convolutions", CONVOLUTIONS_SHARE), ("matrix products", PRODUCTS_SHARE)):
        used = ", ".join(f"{share:.0%} in {arithmetic}" for arithmetic, share in shares.items())
        console.print(f"[dim]Assumed share of the GPU's peak for {what}: {used} (docs/planning.md)[/dim]")
    return None


def _here(made: Plan) -> str:
    """How long the training takes on this machine, which has no GPU."""
    threads = f"{made.cpu_threads} thread{'s' if made.cpu_threads > 1 else ''}"
    length = f"{made.recipe['iterations']:,} iterations"
    return f"here, without a GPU: about {duration(made.cpu_seconds)} for {length}, on {threads} of the CPU"


def _done(share: float, recipe: Recipe) -> str:
    if share <= NEGLIGIBLE:
        return ""
    return " (allowed)" if recipe.outside_range == "allow" else ": truncated to it (--outside-range allow draws them)"


def _memory(made: Plan) -> Table:
    """Gigabytes by component; one column for each number of GPUs."""
    table = Table(title="Memory per GPU (GB)", title_justify="left", box=None, pad_edge=False)
    table.add_column("GPUs")
    for count in made.memory:
        table.add_column(str(count), justify="right")
    table.add_row("micro-batch (samples)", *(str(size) for size in made.micro_batch.values()))
    for name in next(reversed(made.memory.values())):
        table.add_row(name, *(_gigabytes(memory.get(name, 0)) for memory in made.memory.values()))
    table.add_row("total", *(_gigabytes(sum(memory.values())) for memory in made.memory.values()), style="bold")
    return table


def _hours(made: Plan, recipe: Recipe) -> Table:
    """Hours by GPU model; one column for each number of GPUs. If a batch does not fit, the option that makes it fit."""
    title = f"\nHours for {recipe.iterations:,} iterations (in parentheses: an option that makes them fit)"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("GPUs")
    for count in made.memory:
        table.add_column(str(count), justify="right")
    for gpu in dict.fromkeys(one.gpu for one in made.outlook):
        table.add_row(gpu, *(_outlook(one, recipe) for one in made.outlook if one.gpu == gpu))
    return table


def _outlook(one: Outlook, recipe: Recipe) -> str:
    if one.hours is None:
        return f"no {recipe.precision}"
    hours = f"{one.hours:,.0f}" if one.hours >= 10 else f"{one.hours:.1f}" if one.hours >= 0.1 else "< 0.1"
    if one.fits:
        return hours
    return (
        "does not fit"
        if one.gradient_accumulation is None
        else f"{hours} (--gradient-accumulation {one.gradient_accumulation})"
    )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.3g}"


def _operations(flops: float) -> str:
    unit, size = next(((u, s) for u, s in (("T", 1e12), ("G", 1e9)) if flops >= s), ("M", 1e6))
    return f"{flops / size:,.1f} {unit}FLOP"
