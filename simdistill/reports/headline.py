"""The first sentences of a report: how the student compares with its teacher in all that was measured."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from scipy.special import stdtrit

from simdistill.evaluation.extractors import of_inception
from simdistill.evaluation.quality import SAMPLES, SEEDS
from simdistill.evaluation.table import METRICS, OF_FEW, RANKED_BY, Metric
from simdistill.method.metrics import Better
from simdistill.reports.tables import cells, measured
from simdistill.runs.progress import Record

Standing: TypeAlias = Literal["ahead", "behind", "no clear difference"]

LEVEL = 0.01
"""Of the tests: low, because there are up to a dozen metrics."""
FINE = 0.1
"""Samples suffice if they would show a difference of this share of what there was to gain: of the distance between the
undistilled start and the teacher."""
RULERS = (RANKED_BY, OF_FEW)
"""The distances by which that is decided: the first that can be judged."""
SPREAD = "\u00a0±\u00a0"  # which no line break parts
NAMES = ("Fréchet", "FID", "Inception")  # titles that begin with a name keep their capital


def smallest_clear(student: Record, teacher: Record) -> float:
    """The difference of two metrics {mean, std, seeds}, of two seeds or more, from which on it is clear.

    That is where Welch's test (1947) for equal means rejects at `LEVEL`, half the width of its interval: large for
    large standard deviations over the evaluation seeds, and for few seeds. It accounts for the chance of the samples,
    not for that of another training.
    """
    variances = [figure["std"] ** 2 / figure["seeds"] for figure in (student, teacher)]
    if sum(variances) == 0:
        return 0.0
    spread = sum(v**2 / (figure["seeds"] - 1) for v, figure in zip(variances, (student, teacher), strict=True))
    return math.sqrt(sum(variances)) * -float(stdtrit(sum(variances) ** 2 / spread, LEVEL / 2))


def standing(student: Record, teacher: Record, better: Better) -> Standing | None:
    """Whether the student is "ahead" of the teacher in a metric {mean, std, seeds}, "behind", or neither clearly.

    None if either has one seed, and so no spread.
    """
    if min(student["seeds"], teacher["seeds"]) < 2:
        return None
    difference = student["mean"] - teacher["mean"]
    if abs(difference) <= smallest_clear(student, teacher):
        return "no clear difference"
    return "ahead" if (difference < 0) == (better == "lower") else "behind"


@dataclass(frozen=True)
class _Judging:
    """What the figures allow to say. Without a `ruler`, nothing tells whether the samples suffice.

    A Fréchet distance of no more samples than the features have dimensions is not judged: their covariance is singular,
    and a student without variety may come out ahead of the teacher.
    """

    judged: Sequence[Metric]
    left_out: Sequence[Metric]
    ruler: Metric | None

    @classmethod
    def of(cls, figures: Record) -> "_Judging":
        both = [metric for metric in measured(figures) if metric.name in figures["teacher"]]
        singular = figures["student"]["samples"] <= figures.get("dimensions", 0)
        left_out = [metric for metric in both if singular and metric.needs == "moments"]
        judged = [metric for metric in both if metric not in left_out]
        rulers = (metric for name in RULERS for metric in judged if metric.name == name)
        return cls(judged, left_out, next(rulers, None))

    def enough(self, figures: Record) -> bool:
        """Whether there are samples enough for a difference that is not clear to be small; see `FINE`."""
        student, teacher, start = (figures.get(who) or {} for who in ("student", "teacher", "undistilled"))
        if self.ruler is None or self.ruler.name not in start:
            return True
        mine, other, first = (row[self.ruler.name] for row in (student, teacher, start))
        return smallest_clear(mine, other) <= FINE * abs(first["mean"] - other["mean"])


def headline(figures: Record, run: str = "RUN") -> str:
    """The result of an evaluation: evaluations and speed, where the student stands, and what was not measured.

    `run` is the run as the shell takes it, for the commands that are suggested, in backticks.
    """
    student, teacher, speedup = figures["student"], figures["teacher"], figures["speedup"]
    calls = "One network evaluation" if student["nfe"] == 1 else f"{student['nfe']} network evaluations"
    text = f"{calls} instead of {teacher['nfe']}: {speedup:,.{0 if speedup >= 10 else 1}f}× the samples per second. "
    judging = _Judging.of(figures)
    text += _standings(figures, judging)
    doubts = too_few(figures, run)
    text += f" {doubts}" if doubts else ""
    lost = worse_than_start(figures)
    text += f" {lost}" if lost else ""
    known = {metric.name for metric in (*judging.judged, *judging.left_out)}
    missing = [metric for metric in METRICS if metric.name not in known and _applies(metric, figures)]
    text += f" Not measured: {_listed([_said(m, figures) for m in missing])}." if missing else ""
    return text.strip()


def worse_than_start(figures: Record) -> str:
    """That the training did harm, with what to try, if the student is clearly behind the undistilled start; else ""."""
    start, ruler = figures.get("undistilled") or {}, _Judging.of(figures).ruler
    if ruler is None or ruler.name not in start:
        return ""
    if standing(figures["student"][ruler.name], start[ruler.name], ruler.better) != "behind":
        return ""
    remedy = "look at images/teacher-check.png in its folder, and try smaller learning rates"
    return f"In {_said(ruler, figures)} the student is behind its own undistilled start: {remedy}."


def too_few(figures: Record, run: str = "RUN") -> str:
    """What the samples are too few to tell, and the command that draws more, in backticks; "" if they suffice."""
    student, teacher, judging = figures["student"], figures["teacher"], _Judging.of(figures)
    if student["samples"] != teacher["samples"]:
        return ""
    samples, seeds = student["samples"], min(row[RANKED_BY]["seeds"] for row in (student, teacher))
    found, wanted = list[str](), SAMPLES
    if seeds == 1:
        found.append("One evaluation seed, so differences are not tested.")
    elif not judging.enough(figures):
        unclear = [m for m in judging.judged if _standing(m, figures) == "no clear difference"]
        if unclear:
            said = _listed([_words(metric, figures, judging) for metric in unclear])
            count = f"{samples:,} samples × {seeds} seeds"
            found.append(f"{count} are too few to tell student and teacher apart in {said}.")
            wanted = SAMPLES if samples * seeds < SAMPLES * SEEDS else 4 * samples
    if judging.left_out:
        dimensions = figures["dimensions"]
        said = _listed([_words(metric, figures, judging) for metric in judging.left_out])
        found.append(
            f"{said[0].upper()}{said[1:]} is not judged: it takes more samples per seed than the {dimensions:,} "
            "dimensions of its features."
        )
        wanted = max(wanted, 2 * dimensions)
    if not found:
        return ""
    more = "" if wanted == SAMPLES else f" --samples {wanted}"
    return f"{' '.join(found)} `simdistill evaluate {run}{more}` draws {wanted:,} × {SEEDS}."


def _standing(metric: Metric, figures: Record) -> Standing | None:
    return standing(figures["student"][metric.name], figures["teacher"][metric.name], metric.better)


def _standings(figures: Record, judging: _Judging) -> str:
    """Where the student is ahead, where it is behind, and where there is no telling."""
    student, teacher, metrics = figures["student"], figures["teacher"], judging.judged
    if student["samples"] != teacher["samples"]:
        counts = f"{student['samples']:,} and {teacher['samples']:,} samples per seed"
        return f"Student and teacher were measured with {counts}, so they are not compared: {_plain(figures, metrics)}."
    found = {metric: _standing(metric, figures) for metric in metrics}
    if None in found.values():
        return f"Student against teacher: {_plain(figures, metrics)}."
    parts: list[str] = []
    groups = ("ahead", "behind", "no clear difference") if judging.enough(figures) else ("ahead", "behind")
    whose = True
    for group in groups:
        said: list[str] = []
        for metric in (metric for metric in metrics if found[metric] == group):
            words = _words(metric, figures, judging, group != "no clear difference", whose)
            whose = whose and "(" not in words
            said.append(words)
        if said:
            parts.append(f"{group} in {_listed(said)}")
    if len(parts) == 1 and parts[0].startswith("no"):
        return f"Between student and teacher there is {parts[0]}."
    return f"The student is {'; '.join(parts)}." if parts else ""


def _words(metric: Metric, figures: Record, judging: _Judging, clear: bool = False, whose: bool = True) -> str:
    """The title, with the figures of student and teacher if it is the ruler, or a main metric and the case `clear`."""
    words = _said(metric, figures)
    if metric in (judging.ruler, *judging.left_out) or (clear and metric.section == "main"):
        mine, other = (SPREAD.join(cells(figures, metric.name)[who]) for who in ("student", "teacher"))
        owner = "the teacher's " if whose else ""
        words += f" ({mine} against {owner}{other})"
    return words


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
