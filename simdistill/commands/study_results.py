"""`simdistill study results`: the results of a study, with intervals, tests and a bar chart."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from simdistill.commands.common import DatabaseURL, Json
from simdistill.config.options import first_word, parse_numbers, parse_options
from simdistill.study.bars import Kind, bars
from simdistill.study.database import votes_of
from simdistill.study.folder import StudyFolder
from simdistill.study.owner import Owner
from simdistill.study.results import Results, tell
from simdistill.support.checks import require
from simdistill.support.files import replacing, write_atomically
from simdistill.support.tables import without_formulas

KINDS: dict[str, Kind] = {".png": "png", ".svg": "svg", ".pdf": "pdf"}


@dataclass(frozen=True)
class _Results:
    study: Positional[Path] = Path()
    """Folder of the study."""
    attentive: bool = False
    """Exclude participants who failed an attention check."""
    exclude: str = ""
    """Exclude these participants, as 1234567,7654321, in addition to those excluded on the owner's page."""
    rehearsal: bool = False
    """Show the results of the simulated votes of `simdistill study simulate`."""
    database: DatabaseURL = ""
    votes: Path | None = None
    """Output .csv or .parquet with one row per vote; simulated votes have a column `simulated`."""
    picture: Path | None = None
    """Output .png, .svg or .pdf with the shares as a bar chart, for a paper."""
    json: Json = False


ABOUT = """Show the results of a study: how often side a was preferred to side b.

  simdistill study results studies/clothes
  simdistill study results studies/clothes --attentive \\
      --votes votes.parquet --picture bars.pdf

- Preference rates have a Wilson interval, which treats votes as independent,
  and a bootstrap interval, which resamples participants and prompts.
- There are sign tests, and a logistic model with random effects of participants
  and prompts.
- Position bias, attention checks and agreement show the quality of the votes.
- --json also has the results by prompt and by participant.
"""


def run(words: Sequence[str]) -> None:
    """`simdistill study results STUDY …`."""
    path, rest = first_word(words, "study results", "STUDY")
    options = parse_options(_Results(), [path, *rest], "study results STUDY", ABOUT)
    for name, kinds in {"votes": (".csv", ".parquet"), "picture": tuple(KINDS)}.items():
        file = getattr(options, name)
        require(file is None or file.suffix in kinds, f"--{name}", str(file), f"a {' or '.join(kinds)}")
    study = StudyFolder.open(options.study)
    remedy = f"left out: there are no simulated votes; run `simdistill study simulate {quote(str(study.path))}` first"
    require(not options.rehearsal or study.rehearsal_file.is_file(), "--rehearsal", True, remedy)
    owner = Owner(study, votes_of(study, study.rehearsal if options.rehearsal else options.database))
    named = parse_numbers("--exclude", options.exclude) if options.exclude else []
    unknown = [number for number in named if number not in owner.people()]
    require(not unknown, "--exclude", options.exclude, f"numbers of participants; unknown: {unknown[:5]}")
    excluded = sorted({*owner.excluded(), *named})
    votes = owner.votes().filter(~pl.col("participant").is_in(excluded))
    results = tell(votes, study.settings, options.attentive, options.rehearsal, excluded)
    votes = votes.filter(~pl.col("participant").is_in(results["left_out"]))
    if options.rehearsal:
        votes = votes.with_columns(pl.lit(True).alias("simulated"))
    if options.votes is not None:
        with replacing(options.votes) as file:
            without_formulas(votes).write_csv(file) if options.votes.suffix == ".csv" else votes.write_parquet(file)
    if options.picture is not None:
        write_atomically(options.picture, bars(results, KINDS[options.picture.suffix]))
    if options.json:
        return print(json.dumps(results))
    return print_results(results)


def print_results(results: Results) -> None:
    """Print the results as tables."""
    a, b = results["a"], results["b"]
    if results["simulated"]:
        print("simulated votes:")
    people = results["participants"]
    print(f"{a} preferred to {b}: {people} participant{'s' if people != 1 else ''}")
    if results["excluded"]:
        print(f"excluded by the owner: participants {', '.join(map(str, results['excluded']))}")
    if results["left_out"]:
        print(f"excluded for failing an attention check: participants {', '.join(map(str, results['left_out']))}")
    table = Table(box=None, pad_edge=False)
    rows = {name: _rows(found, a) for name, found in results["questions"].items()}
    table.add_column("")
    for name in rows:
        table.add_column(name, justify="right")
    for title in next(iter(rows.values())):
        table.add_row(title, *(cells[title] for cells in rows.values()))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120, markup=False).print(table)
    checks = results["attention"]
    if checks["checks"]:
        print(f"attention checks: {checks['failed']} of {checks['checks']} failed")


def _rows(found: dict[str, Any], side: str) -> dict[str, str]:
    """The table's cells for a question, by title."""
    share, mixed, majorities = found["preference"], found["mixed"] or {}, found["majorities"]
    twice = found["consistency"]
    return {
        "votes": f"{found['votes']}, {found['ties']} tie{'s' if found['ties'] != 1 else ''}",
        "preference rate": _rate(share["rate"], None),
        "  Wilson interval": _interval(share["wilson"]),
        "  bootstrap interval, over participants and prompts": _interval(found["bootstrap"]),
        "  typical participant and prompt (mixed model)": _rate(mixed.get("rate"), mixed.get("interval")),
        "sign test, p: votes": _p(share["p"]),
        f"  participants with a majority for {side}": _majority(majorities["participants"]),
        f"  prompts with a majority for {side}": _majority(majorities["prompts"]),
        "left image chosen": _rate(found["position"]["rate"], found["position"]["wilson"]),
        "agreement, Fleiss' kappa": "–" if found["agreement"] is None else f"{found['agreement']:.3f}",
        "same answer to repeats (which count only here)": f"{twice['wins']} of {twice['votes']}"
        if twice["votes"]
        else "–",
    }


def _rate(rate: float | None, interval: Sequence[float] | None) -> str:
    text = "–" if rate is None else f"{100 * rate:.1f} %"
    return text if interval is None else f"{text} ({_interval(interval)})"


def _interval(interval: Sequence[float] | None) -> str:
    return "–" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"


def _p(p: float | None) -> str:
    return "–" if p is None else f"{p:.2g}"


def _majority(found: dict[str, Any]) -> str:
    return f"{found['wins']} of {found['votes']}, p = {_p(found['p'])}"
