"""The report of a run: one HTML page that needs nothing but itself, made from whatever the run's folder holds."""

import base64
import io
import json
import math
import os
import platform
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator
from PIL import Image

from simdistill.configuration import to_toml
from simdistill.files import write_atomically
from simdistill.runs import RunFolder

TEMPLATES = Environment(
    loader=PackageLoader("simdistill.evaluation", "."),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


class Metric(NamedTuple):
    """A column of the tables."""

    key: str
    title: str
    better: str
    meaning: str


MAIN = [
    Metric("frechet", "Fréchet distance", "lower", "between the means and covariances of samples and reference"),
    Metric("precision", "Precision", "higher", "share of samples that look like the reference: fidelity"),
    Metric("recall", "Recall", "higher", "share of the reference that the samples reach: diversity"),
]
MORE = [
    Metric("density", "Density", "higher", "how deep the samples lie inside the reference; may exceed 1"),
    Metric("coverage", "Coverage", "higher", "share of the reference with a sample close by"),
    Metric("kernel", "Kernel distance", "lower", "unbiased squared MMD with a cubic kernel; about 0 if equal"),
    Metric("energy", "Energy distance", "lower", "compares all pairwise distances"),
    Metric("sliced_wasserstein", "Sliced Wasserstein", "lower", "mean transport cost over random directions"),
]


class Chart(NamedTuple):
    """An inline SVG in the page's own colours, and its legend: (label, name of the colour, style of the line)."""

    svg: str
    legend: list[tuple[str, str, str]]


def write_report(run: RunFolder) -> None:
    """Write the page `report.html` from configuration, metrics, pictures and, where there are any, figures of `run`.

    It says what is missing where a run was interrupted or has not been evaluated.
    """
    figures = json.loads(run.evaluation.read_text()) if run.evaluation.exists() else None
    config, records = run.configuration(), run.records()
    milestones = [record for record in records if "quality" in record]
    profiles = [record for record in records if record.get("y")]
    levels = sorted({level for record in profiles for level in record["y"]}, key=float)
    path = run.path.name if run.path.is_absolute() else run.path.as_posix()  # the page may be shown to others
    page = TEMPLATES.get_template("report.html.jinja").render(
        name=run.path.resolve().name,
        sentence=_result(figures) if figures else _progress(config, records),
        evaluated=bool(figures),
        facts=_facts(config, records),
        samplers={name: _picture(run.picture(name)) for name in ("teacher", "student", "undistilled")},
        evaluations={} if not figures else {name: figures[name]["evaluations"] for name in ("teacher", "student")},
        tables=[_table(figures, metrics) for metrics in (MAIN, MORE)] if figures else [],
        conditions=_conditions(figures) if figures else {},
        curve=_learning_curve(milestones, figures) if milestones else None,
        shares=_shares(milestones, figures) if milestones else None,
        profile=_profile(profiles, levels) if profiles else None,
        level_colours=_level_colours(len(levels)),
        film=_film(run, milestones),
        config=[(key, _setting(value)) for key, value in config.items()],
        command=_command(config, path),
        evaluate_command=f"simdistill evaluate {shlex.quote(path)}",
    )
    write_atomically(run.report, page.encode())


def _result(figures: Mapping[str, Any]) -> str:
    """The outcome in two plain sentences, whichever way it went."""
    teacher, student, speedup = figures["teacher"], figures["student"], figures["speedup"]
    (t, s), decimals = (teacher["frechet"], student["frechet"]), _decimals(figures, "frechet")
    several = s["seeds"] > 1
    t_text, s_text = (_number(f["mean"], decimals, f["std"] if several else None) for f in (t, s))
    verdict = "Its distance is lower than the teacher's." if s["mean"] < t["mean"] else "It falls short of its teacher."
    if abs(s["mean"] - t["mean"]) <= s["std"] + t["std"]:
        verdict = "The two distances agree within their spread."
    return (
        f"One network evaluation instead of {teacher['evaluations']}: {speedup:.{0 if speedup >= 10 else 1}f}× "
        f"the images per second, Fréchet distance {s_text} where the teacher has {t_text}. {verdict if several else ''}"
    ).strip()


def _progress(config: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> str:
    """What can be said of a run without figures."""
    done = records[-1]["iteration"] if records else 0
    latest = next((record for record in reversed(records) if "quality" in record), None)
    text = f"Not evaluated yet: {done:,} of {config.get('iterations', '?'):,} iterations are recorded"
    if latest is None:
        return f"{text}."
    return (
        f"{text}, with a Fréchet distance of {latest['quality']['frechet']['mean']:.3f} at iteration "
        f"{latest['iteration']:,}."
    )


def _facts(config: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The run at a glance: names and values."""
    done, seconds = (records[-1]["iteration"], records[-1]["seconds"]) if records else (0, 0.0)
    asked, batch = config.get("iterations", done), config.get("batch")
    minutes = f"{seconds / 60:.0f} min {seconds % 60:02.0f} s" if seconds >= 60 else f"{seconds:.0f} s"
    return [
        ("Teacher", _setting(config.get("teacher", "unknown"))),
        ("Iterations", f"{done:,}" if done == asked else f"{done:,} of {asked:,}"),
        ("Batch", f"{batch:,} images" if batch else "unknown"),
        ("Training time", minutes),
    ]
