"""`python -m benchmarks [PART …] [--quick]`: measure, print, and renew benchmarks/results.json and docs/speed.md."""

import argparse
import json
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console

from benchmarks import first_minutes, iteration, phases, scaling, time_to_quality, variance
from benchmarks.machine import ROOT, describe
from benchmarks.tables import Table, publish

PARTS: dict[str, ModuleType] = {
    "first-minutes": first_minutes,
    "iteration": iteration,
    "phases": phases,
    "scaling": scaling,
    "variance": variance,
    "time-to-quality": time_to_quality,
}
RESULTS, PAGE = Path(__file__).parent / "results.json", ROOT / "docs" / "speed.md"


def main() -> None:
    """Measure the given parts, or all; `--quick` tries them out and keeps nothing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all if none is given")
    parser.add_argument("--quick", action="store_true", help="a minute in total; printed, not kept")
    asked = parser.parse_args()
    unknown = [part for part in asked.parts if part not in PARTS]
    if unknown:
        parser.error(f"unknown part {unknown[0]}; known: {', '.join(PARTS)}")
    console = Console()
    for part in asked.parts or PARTS:
        console.print(f"measuring {part} …", style="dim")
        measured = {"machine": describe(), **PARTS[part].measure(asked.quick)}
        for table in PARTS[part].tables(measured):
            console.print(table.rich())
        if not asked.quick:
            keep(part, measured)


def keep(part: str, measured: dict[str, Any]) -> None:
    """Replace the part's former measurements in the results and on the page."""
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    results[part] = measured
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(publish(PAGE.read_text(encoding="utf-8"), published(results)), encoding="utf-8")


def published(results: dict[str, Any]) -> list[Table]:
    """All tables of the page: the machine, and each measured part."""
    measured = [(part, PARTS[part], results[part]) for part in PARTS if part in results]
    return [_machines(results), *(table for _, module, own in measured for table in module.tables(own))]


def _machines(results: dict[str, Any]) -> Table:
    facts = ["processor", "cores", "torch", "python", "load", "date", "command"]
    rows = [[part, *(str(own["machine"][fact]) for fact in facts)] for part, own in results.items()]
    return Table("machine", "Machine", ["part", *facts[:4], "load before", *facts[5:]], rows)


if __name__ == "__main__":
    main()
