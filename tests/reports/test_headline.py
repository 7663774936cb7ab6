"""The report's first sentences follow from all figures and their spreads."""

import pytest
from reports import evaluation, figure
from scipy import stats

from simdistill.commands.common import print_figures
from simdistill.reports import headline as sentences
from simdistill.reports.headline import standing, worse_than_start


@pytest.mark.parametrize(
    ("student", "teacher", "better", "said"),
    [
        # Welch's p: 0.006, 0.033, 0.0003
        (figure(0.078, 0.005), figure(0.095, 0.008), "lower", "ahead"),
        (figure(0.865, 0.009), figure(0.880, 0.009), "higher", "no clear difference"),
        (figure(0.836, 0.011), figure(0.884, 0.009), "higher", "behind"),
        (figure(0.095, 0.008), figure(0.078, 0.005), "lower", "behind"),
        (figure(0.884, 0.009), figure(0.836, 0.011), "higher", "ahead"),
        # the same difference and spreads by fewer seeds: p = 0.1
        (figure(0.078, 0.005, 2), figure(0.095, 0.008, 2), "lower", "no clear difference"),
        (figure(0.078, 0.005, 20), figure(0.080, 0.005, 20), "lower", "no clear difference"),
        (figure(25.0, 0.0), figure(25.0, 0.0), "higher", "no clear difference"),
        (figure(24.0, 0.0), figure(25.0, 0.0), "higher", "behind"),
        (figure(0.078, 0.0, 1), figure(0.095, 0.008), "lower", None),
        (figure(0.078, 0.005), figure(0.095, 0.0, 1), "lower", None),
    ],
)
def test_a_standing_follows_from_means_spreads_and_seeds(student, teacher, better, said):
    assert standing(student, teacher, better) == said


def headline(values):
    """Its line breaks are of no account."""
    return sentences.headline(values).replace("\u00a0", " ")


def with_metrics(**pairs):
    """An evaluation with just these metrics, as (student's, teacher's) figures."""
    values = evaluation((0.078, 0.005), teacher=(0.095, 0.008))
    for row in ("teacher", "student", "undistilled"):
        values[row] = {key: values[row][key] for key in ("nfe", "images_per_second", "samples")}
    for name, (student, teacher) in pairs.items():
        values["student"][name], values["teacher"][name] = student, teacher
        values["undistilled"][name] = figure(6.9 * (name == "frechet"), teacher["std"], teacher["seeds"])
    return values


DISTANCE = (figure(0.078, 0.005), figure(0.095, 0.008))
SPEED = "One network evaluation instead of 35: 31× the samples per second. "
REST = "density, coverage, kernel distance, energy distance and sliced Wasserstein"


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (
            {
                "frechet": DISTANCE,
                "precision": (figure(0.865, 0.009), figure(0.88, 0.009)),
                "recall": (figure(0.836, 0.011), figure(0.884, 0.009)),
            },
            "The student is ahead in Fréchet distance (0.0780 ± 0.0050 against the teacher's 0.0950 ± 0.0080); behind "
            "in recall (0.8360 ± 0.0110 against 0.8840 ± 0.0090); no clear difference in precision. Not measured: ",
        ),
        (
            {"frechet": DISTANCE[::-1], "recall": (figure(0.836, 0.011), figure(0.884, 0.009))},
            "The student is behind in Fréchet distance (0.0950 ± 0.0080 against the teacher's 0.0780 ± 0.0050) and "
            "recall (0.8360 ± 0.0110 against 0.8840 ± 0.0090). Not measured: precision, ",
        ),
        (
            {"frechet": (figure(0.09, 0.01), figure(0.095, 0.01)), "density": (figure(0.9, 0.1), figure(0.95, 0.1))},
            "Between student and teacher there is no clear difference in Fréchet distance (0.090 ± 0.010 against the "
            "teacher's 0.095 ± 0.010) and density. Not measured: precision, recall, coverage, ",
        ),
        (
            {"frechet": (figure(7.0, 0.01), figure(0.09, 0.01))},
            "The student is behind in Fréchet distance (7.000 ± 0.010 against the teacher's 0.090 ± 0.010). In Fréchet "
            "distance the student is behind its own undistilled start: look at images/teacher-check.png in its folder, "
            "and try smaller learning rates. Not measured: precision, recall, ",
        ),
        (
            {"frechet": (figure(0.6442, 0, 1), figure(0.0956, 0, 1)), "recall": (figure(0.5, 0, 1), figure(0.9, 0, 1))},
            "Student against teacher: Fréchet distance 0.644 against 0.096, recall 0.500 against 0.900. One evaluation "
            "seed, so differences are not tested. `simdistill evaluate RUN` draws 2,000 × 5. Not measured: ",
        ),
        (
            {"frechet": DISTANCE, "modes_found": (figure(20.0, 0.0), figure(25.0, 0.0))},
            "; behind in modes found. Not measured: ",
        ),
    ],
    ids=["mixed", "behind", "alike", "no better than its start", "one seed", "modes"],
)
def test_the_headline_has_every_metric(pairs, said):
    text = headline(with_metrics(**pairs))
    assert text.startswith(SPEED)
    assert said in text


def test_what_was_not_measured_is_named_where_it_could_be():
    assert headline(with_metrics(frechet=DISTANCE)).endswith(f"Not measured: precision, recall, {REST}.")
    fid = with_metrics(frechet=DISTANCE) | {"features": "inception-6726825d"}
    assert "ahead in FID (" in headline(fid)
    assert headline(fid).endswith(f"Not measured: Inception Score, precision, recall, {REST}.")
    assert "Not measured" not in headline(evaluation((0.078, 0.005)))


def test_figures_of_other_numbers_of_samples_are_not_compared():
    values = with_metrics(frechet=DISTANCE)
    values["teacher"]["samples"] = 500
    assert (
        "Student and teacher were measured with 2,000 and 500 samples per seed, so they are not compared: Fréchet "
        "distance 0.0780 ± 0.0050 against 0.0950 ± 0.0080." in headline(values)
    )


def test_few_steps_and_slow_students_are_said_as_they_are():
    values = with_metrics(frechet=DISTANCE) | {"speedup": 0.84}
    values["student"]["nfe"] = 4
    assert headline(values).startswith("4 network evaluations instead of 35: 0.8× the samples per second. ")


def of_few(frechet, energy, samples, dimensions=64, start=(6.9, 0.5)):
    """An evaluation of few samples: the figures of Fréchet and energy distance are (student's, teacher's)."""
    values = with_metrics(frechet=frechet, energy=energy)
    for row in ("teacher", "student", "undistilled"):
        values[row]["samples"] = samples
    seeds = frechet[0]["seeds"]
    values["undistilled"] |= {"frechet": figure(start[0], 0.2, seeds), "energy": figure(start[1], 0.02, seeds)}
    return values | {"dimensions": dimensions}


NOISE = (figure(53.4, 3.8, 2), figure(8.7, 0.9, 2)), (figure(3.18, 0.21, 2), figure(0.42, 0.06, 2))
DRAWN = "`simdistill evaluate RUN` draws 2,000 × 5."


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (  # noise, of 20 × 2 samples: as `python -m benchmarks.few_samples` has it
            of_few(*NOISE, 20),
            "20 samples × 2 seeds are too few to tell student and teacher apart in energy distance (3.180 ± 0.210 "
            "against the teacher's 0.420 ± 0.060). Fréchet distance (53.40 ± 3.80 against the teacher's 8.70 ± 0.90) "
            f"is not judged: it takes more samples per seed than the 64 dimensions of its features. {DRAWN}",
        ),
        (  # two seeds of samples enough for the covariance
            of_few(*NOISE, 100),
            "100 samples × 2 seeds are too few to tell student and teacher apart in Fréchet distance (53.40 ± "
            f"3.80 against the teacher's 8.70 ± 0.90) and energy distance. {DRAWN} Not measured",
        ),
        (  # a blurred student is not ahead for its lack of variety
            of_few((figure(6.9, 0.4), figure(9.1, 0.3)), (figure(0.60, 0.04), figure(0.45, 0.03)), 20),
            "The student is behind in energy distance (0.600 ± 0.040 against the teacher's 0.450 ± 0.030). Fréchet "
            "distance (6.90 ± 0.40 against the teacher's 9.10 ± 0.30) is not judged",
        ),
        (  # clear in one metric, and no telling in the other
            of_few((figure(2.1, 0.9, 3), figure(0.9, 0.2, 3)), (figure(0.16, 0.01, 3), figure(0.06, 0.01, 3)), 50, 32),
            "The student is behind in energy distance. 50 samples × 3 seeds are too few to tell student and teacher "
            f"apart in Fréchet distance (2.10 ± 0.90 against the teacher's 0.90 ± 0.20). {DRAWN} Not measured",
        ),
        (  # a full evaluation that cannot tell either asks for more
            of_few((figure(2.1, 0.9), figure(0.9, 0.2)), (figure(0.16, 0.01), figure(0.06, 0.01)), 2000),
            "`simdistill evaluate RUN --samples 8000` draws 8,000 × 5.",
        ),
        (  # more dimensions than a full evaluation has samples
            of_few((figure(2.1, 0.1), figure(0.9, 0.1)), (figure(0.16, 0.01), figure(0.06, 0.01)), 2000, 3072),
            "3,072 dimensions of its features. `simdistill evaluate RUN --samples 6144` draws 6,144 × 5.",
        ),
    ],
    ids=["noise", "two seeds", "blurred", "partly clear", "full", "dimensions"],
)
def test_too_few_samples_are_not_called_no_difference(values, said):
    text = headline(values)
    assert said in text
    assert "no clear difference" not in text


def test_samples_suffice_that_tell_a_tenth_of_what_there_was_to_gain():
    """Welch's interval of 3 × 0.1 and 3 × 0.1 is ±0.376, and a tenth of the way from the start is 0.6 or 0.3."""
    same = (figure(0.95, 0.1, 3), figure(0.9, 0.1, 3)), (figure(0.06, 0.01, 3), figure(0.06, 0.01, 3))
    assert "there is no clear difference in Fréchet" in headline(of_few(*same, 500, start=(6.9, 0.5)))
    assert "too few to tell" in headline(of_few(*same, 500, start=(3.9, 0.5)))
    assert sentences.too_few(of_few(*same, 500, start=(6.9, 0.5))) == ""


def test_the_smallest_clear_difference_is_where_welchs_test_rejects():
    """By scipy's p-values: just below 1 % on one side, just above on the other."""
    student, teacher = figure(0.0, 0.3, 4), figure(0.0, 0.1, 6)
    found = sentences.smallest_clear(student, teacher)
    p = [stats.ttest_ind_from_stats(k * found, 0.3, 4, 0, 0.1, 6, equal_var=False).pvalue for k in (0.999, 1.001)]
    assert p[1] < 0.01 < p[0]
    assert sentences.smallest_clear(figure(1.0, 0.0), figure(2.0, 0.0)) == 0


def test_the_command_names_the_run():
    assert "`simdistill evaluate 'my run'` draws" in sentences.headline(of_few(*NOISE, 20), "'my run'")


def test_the_console_says_that_a_training_did_harm(tmp_path, capsys):
    for student, said in ((7.0, True), (0.5, False)):
        figures = with_metrics(frechet=(figure(student, 0.01), figure(0.09, 0.01)))
        print_figures({"ema": {}, "real": None} | figures, tmp_path, as_json=False)
        told = capsys.readouterr().out
        told = " ".join(told.split())
        assert ("behind its own undistilled start" in told) == said == bool(worse_than_start(figures))
