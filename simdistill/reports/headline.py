"""The first sentences of a report: how the student compares with its teacher in all that was measured."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from scipy import stats

from simdistill.evaluation.extractors import of_inception
from simdistill.evaluation.table import METRICS, RANKED_BY, Metric
from simdistill.method.metrics import Better
from simdistill.reports.tables import cells, measured
from simdistill.runs.progress import Record

Standing: TypeAlias = Literal["ahead", "behind", "no clear difference"]

LEVEL = 0.01
"""Of the tests: low, because there are up to a dozen metrics."""
SPREAD = "\u00a0±\u00a0"  # which no line break parts
NAMES = ("Fréchet", "FID", "Inception")  # titles that begin with a name keep their capital


def standing(student: Record, teacher: Record, better: Better) -> Standing | None:
    """Whether the student is "ahead" of the teacher in a metric {mean, std, seeds}, "behind", or neither clearly.

    A difference is clear if Welch's test (1947) for equal means rejects at `LEVEL`: it is large against the standard
    deviations over the evaluation seeds, and more so for fewer seeds. It accounts for the chance of the samples, not
    for that of another training. None if either has one seed, and so no spread.
    """
    if min(student["seeds"], teacher["seeds"]) < 2:
        return None
    difference = student["mean"] - teacher["mean"]
    if student["std"] or teacher["std"]:
        mine, other = ([figure[key] for key in ("mean", "std", "seeds")] for figure in (student, teacher))
        clear = stats.ttest_ind_from_stats(*mine, *other, equal_var=False).pvalue < LEVEL
    else:
        clear = difference != 0
    if not clear:
        return "no clear difference"
    return "ahead" if (difference < 0) == (better == "lower") else "behind"


def headline(figures: Record) -> str:
    """The result of an evaluation: evaluations and speed, where the student stands, and what was not measured."""
    student, teacher, speedup = figures["student"], figures["teacher"], figures["speedup"]
    calls = "One network evaluation" if student["nfe"] == 1 else f"{student['nfe']} network evaluations"
    text = f"{calls} instead of {teacher['nfe']}: {speedup:,.{0 if speedup >= 10 else 1}f}× the samples per second. "
    metrics = [metric for metric in measured(figures) if metric.name in teacher]
    text += _standings(figures, metrics)
    start = figures.get("undistilled") or {}
    lost = [m for m in metrics if m.name in start and standing(student[m.name], start[m.name], m.better) == "behind"]
    if lost and lost[0].name == RANKED_BY:
        text += f" In {_said(lost[0], figures)} it is behind its own undistilled start."
    known = {metric.name for metric in metrics}
    missing = [metric for metric in METRICS if metric.name not in known and _applies(metric, figures)]
    return f"{text} Not measured: {_listed([_said(m, figures) for m in missing])}." if missing else text


def _standings(figures: Record, metrics: Sequence[Metric]) -> str:
    """Where the student is ahead, where it is behind, and where there is no telling."""
    student, teacher = figures["student"], figures["teacher"]
    if student["samples"] != teacher["samples"]:
        counts = f"{student['samples']:,} and {teacher['samples']:,} samples per seed"
        return f"Student and teacher were measured with {counts}, so they are not compared: {_plain(figures, metrics)}."
    found = {metric: standing(student[metric.name], teacher[metric.name], metric.better) for metric in metrics}
    if None in found.values():
        return f"One evaluation seed, so differences are not tested: {_plain(figures, metrics)}."
    parts: list[str] = []
    whose = "the teacher's "
    for group in ("ahead", "behind", "no clear difference"):
        said: list[str] = []
        for metric in (metric for metric in metrics if found[metric] == group):
            words = _said(metric, figures)
            if metric.name == RANKED_BY or (group != "no clear difference" and metric.section == "main"):
                mine, other = (SPREAD.join(cells(figures, metric.name)[who]) for who in ("student", "teacher"))
                words += f" ({mine} against {whose}{other})"
                whose = ""
            said.append(words)
        if said:
            parts.append(f"{group} in {_listed(said)}")
    if len(parts) == 1 and parts[0].startswith("no"):
        return f"Between student and teacher there is {parts[0]}."
    return f"The student is {'; '.join(parts)}."


def _plain(figures: Record, metrics: Sequence[Metric]) -> str:
    """The figures of student and teacher, without a judgement."""
    said: list[str] = []
    for metric in (metric for metric in metrics if metric.section == "main"):
        found = cells(figures, metric.name)
        said.append(f"{_said(metric, figures)} {SPREAD.join(found['student'])} against {SPREAD.join(found['teacher'])}")
    return ", ".join(said)


def _applies(metric: Metric, figures: Record) -> bool:
    """Whether a metric could have been measured in this feature space, given a reference with all its features."""
    return metric.needs in ("moments", "features") or (
        metric.needs == "classes" and of_inception(figures.get("features"))
    )


def _said(metric: Metric, figures: Record) -> str:
    """The title within a sentence."""
    title = metric.title_in(figures.get("features"))
    return title if metric.section == "own" or title.startswith(NAMES) else title[0].lower() + title[1:]


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
