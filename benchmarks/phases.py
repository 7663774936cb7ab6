"""The time of an iteration by the phases of `DistillationTrainer.step`.

Run as `python -m benchmarks.phases NETWORK CONTENDER…` in its own process for each network.
"""

import json
import sys
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.contenders import step_of
from benchmarks.machine import fresh
from benchmarks.networks import NETWORKS
from benchmarks.tables import Table

PHASES = ["draw", "online update", "generator update", "ema"]
CONTENDERS = ["eager", "eager, shared samples"]


def measure(quick: bool = False) -> dict[str, Any]:
    """Milliseconds per iteration by network, contender and phase."""
    networks = ["mlp"] if quick else list(NETWORKS)
    split = {name: fresh("phases", name, *CONTENDERS, threads=NETWORKS[name].threads) for name in networks}
    return {"networks": split}


def tables(measured: dict[str, Any]) -> list[Table]:
    """One table; the phases as shares of their sum."""
    rows: list[list[str]] = []
    for name, contenders in measured["networks"].items():
        for contender, phases in contenders.items():
            total = sum(phases.values())
            shares = [f"{phases[phase] / total:.1%}" if phase in phases else "–" for phase in PHASES]
            rows.append([f"{name}, {contender}", f"{total:,.1f} ms", *shares])
    columns = ["network, contender", "total", *(phase.replace("ema", "EMA") for phase in PHASES)]
    return [Table("phases", "An iteration by phase, under the profiler", columns, rows)]


def phases_of(contender: str, name: str) -> dict[str, float]:
    """Milliseconds per phase, means over some iterations after two warm-up ones."""
    step, repeats = step_of(contender, NETWORKS[name]), max(3, round(0.5 / NETWORKS[name].seconds))
    for _ in range(2):
        step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(repeats):
            step()
    events = {event.key: event.cpu_time_total for event in profiler.key_averages()}
    return {phase: events[phase] / 1e3 / repeats for phase in PHASES if phase in events}


if __name__ == "__main__":
    print(json.dumps({contender: phases_of(contender, sys.argv[1]) for contender in sys.argv[2:]}))
