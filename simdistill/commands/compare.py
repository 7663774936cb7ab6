"""`simdistill compare`: which variant of a recipe is better, and is the difference significant?"""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.table import Table
from tyro.conf import UseAppendAction, arg

from simdistill.commands.common import Common, Config
from simdistill.commands.settings import about_blocks, configured
from simdistill.comparison.comparing import check_folder, compare
from simdistill.comparison.estimate import describe, estimate
from simdistill.comparison.grid import GRIDS, Grid, product, ready_made, varied
from simdistill.comparison.page import columns, number, verdict
from simdistill.comparison.results import Row
from simdistill.comparison.setting import Setting
from simdistill.config.auto import NAME as AUTO
from simdistill.config.options import first_word, named_file, parse_options
from simdistill.config.recipes import RECIPES, Recipe
from simdistill.evaluation.table import RANKED_BY, Metric, all_metrics, metric_named
from simdistill.support.bar import duration
from simdistill.support.checks import require
from simdistill.training.loop import MILESTONES


@dataclass(frozen=True)
class _Compare(Common):
    settings: Annotated[Recipe, arg(name="")] = RECIPES["digits"]
    grid: str = ""
    """Ready-made variants: figure-2 (objective, noise distribution, weighting), table-4 (distances),
    table-5 (online steps, c, EMA), family (SIM, SiD, Diff-Instruct, DMD)."""
    over: UseAppendAction[tuple[tuple[str, ...], ...]] = ()
    """A setting and the values to compare; if given more than once, all combinations are variants."""
    seeds: int = 3
    """Training seeds per variant, from --seed on."""
    samples: int = 2000
    """Samples per evaluation seed, for the final metrics."""
    evaluation_seeds: int = 3
    """Evaluation seeds of the final metrics."""
    milestones: int = MILESTONES
    """Points on a learning curve besides its start, 2,000 samples each."""
    workers: int | None = None
    """Cells run in parallel; by default one per core, or per GPU."""
    out: Path | None = None
    """Folder of the comparison; by default runs/compare-RECIPE or runs/compare-RECIPE-GRID."""
    config: Config = None
    dry_run: bool = False
    """List the cells, their settings and their estimated time, from a few iterations of each kind; then stop."""


ABOUT = """Train variants of a recipe with several seeds each, and test the differences.

  simdistill compare digits --grid figure-2
  simdistill compare digits --over generator-lr 1e-4 3e-4 \\
      --over generator-noise "Karras()" "LogNormal(-0.9, 1.2)"
  simdistill compare cifar10-cond --teacher teacher.pkl --grid table-4 \\
      --iterations 20000 --dry-run

- All variants have the same budget.
- OUT/compare.html has the ranking, curves and samples; tables of cells and
  milestones are beside it (.csv, .parquet).
- Each cell, a variant with one training seed, is a run's folder in OUT/cells.
- If stopped, the same command resumes the comparison; with more seeds or
  variants, it runs only the missing cells.
"""


def run(words: Sequence[str]) -> None:
    """`simdistill compare RECIPE …`."""
    if words[:1] == [AUTO]:
        first = "`simdistill distill --teacher X --out runs/auto`, whose settings are written before it trains"
        then = "`simdistill compare digits --config runs/auto/config.toml …`"
        raise ValueError(f"RECIPE = {AUTO!r}: must be a recipe with settings of its own: run {first}, then {then}")
    name, rest = first_word(words, "compare", "RECIPE", RECIPES)
    about = f"{ABOUT}\n{about_blocks()}"
    base = configured(RECIPES[name], named_file(rest, "--config"))
    options = parse_options(_Compare(settings=base), rest, f"compare {name}", about)
    out = options.out or Path("runs") / "-".join(filter(None, ["compare", name, options.grid]))
    if not options.dry_run:
        check_folder(out)
    setting = Setting(
        options.settings,
        _grid(options),
        out,
        options.seeds,
        options.samples,
        options.evaluation_seeds,
        options.milestones,
        options.workers,
        options.device,
    )
    if options.dry_run:
        return _print_plan(setting, options.json)
    rows, jobs = compare(setting, shlex.join(["simdistill", "compare", *words]))
    failed = [job for job in jobs if job.failure]
    if options.json:
        failures = {job.name: job.failure for job in failed}
        found = {"out": str(setting.out), "variants": [vars(row) for row in rows], "failures": failures}
        return print(json.dumps(found))
    teacher = jobs[-1].figures(options.samples, options.evaluation_seeds) or {}
    _print_rows(rows, all_metrics(options.settings.metrics), teacher.get("features"))
    for job in failed:
        print(f"{job.name}: {job.failure}" + ("" if job.damage else f" ({job.run.path / 'log.txt'})"))
    print(
        f"page: {setting.out / 'compare.html'}   tables: {setting.out / 'cells.csv'}, {setting.out / 'milestones.csv'}"
    )
    return None


def _grid(options: _Compare) -> Grid:
    """The variants that --grid and --over ask for: their combinations, if both do."""
    require(options.grid in ("", *GRIDS), "--grid", options.grid, f"one of {', '.join(GRIDS)}")
    require(all(options.over), "--over", options.over, "a setting and the values to compare")
    keys = [key.replace("-", "_") for key, *_ in options.over]
    require(len(set(keys)) == len(keys), "--over", options.over, "given once for each setting")
    asked = bool(options.grid or options.over)
    require(asked, "--over", "nothing", f"given, or --grid: one of {', '.join(GRIDS)}")
    named = ready_made(options.grid, options.settings) if options.grid else {"": {}}
    for key in keys:
        require(key not in varied(named), "--over", key, f"a setting that --grid {options.grid} leaves as it is")
    crossed = product({axis[0]: axis[1:] for axis in options.over}) if options.over else {"": {}}
    return {
        ", ".join(filter(None, [first, second])): {**settings, **more}
        for first, settings in named.items()
        for second, more in crossed.items()
    }


def _print_plan(setting: Setting, as_json: bool) -> None:
    plan = describe(setting, estimate(setting))
    if as_json:
        return print(json.dumps(plan))
    table = Table(box=None, pad_edge=False)
    for heading in ("variant", "training seed", "time"):
        table.add_column(heading, overflow="fold")
    for cell in plan["cells"]:
        table.add_row(cell["variant"], str(cell["training_seed"]), duration(cell["seconds"]))
    _wide().print(table)
    count, threads = plan["workers"], plan["threads"]
    at_once = f"{count} at a time with {threads} thread{'s' if threads > 1 else ''} each"
    print(
        f"{len(plan['cells'])} cells of {plan['iterations']:,} iterations, batch {plan['batch']}, {at_once}: about "
        f"{duration(plan['seconds'])}, and the teacher's evaluation"
    )
    return None


def _wide() -> Console:
    """Stdout, with room for names in a file or a pipe."""
    return Console(width=None if sys.stdout.isatty() else 160)


def _print_rows(rows: Sequence[Row], metrics: Sequence[Metric], features: str | None) -> None:
    shown, distance = columns(rows, metrics), metric_named(RANKED_BY).heading_in(features)
    table = Table(box=None, pad_edge=False)
    for heading in ("variant", distance, "95 % interval", *(metric.heading for metric in shown), "against the best"):
        left = heading in ("variant", "against the best")
        table.add_column(heading, overflow="fold", justify="left" if left else "right")
    for row in rows:
        interval = "" if row.low is None or row.high is None else f"{number(row.low)}–{number(row.high)}"
        numbers = ["–" if row.distance is None else number(row.distance), interval]
        numbers += [metric.text(row.metrics[metric.name]) if metric.name in row.metrics else "–" for metric in shown]
        table.add_row(row.variant, *numbers, verdict(row))
    _wide().print(table)
