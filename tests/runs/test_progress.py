"""How far and how fast a run is, by the lines of its metrics."""

import pytest
from records import line, milestone

from simdistill.runs.progress import Progress, log_lines, short
from simdistill.support.bar import duration

# fifty iterations every five seconds
STEADY = [line(k, k / 10) for k in range(50, 501, 50)]
ROLLBACK = {"iteration": 50, "seconds": 9.0, "rollback": "the loss is nan", "rate": 0.5}


@pytest.mark.parametrize(
    ("records", "total", "iteration", "seconds", "pace", "remaining", "line_seconds"),
    [
        ([], 1000, 0, 0.0, None, None, 0.0),
        ([milestone(0, 0.0)], 1000, 0, 0.0, None, None, 0.0),
        ([milestone(0, 0.0), line(50, 4.0)], 1000, 50, 4.0, 12.5, 76.0, 4.0),
        (STEADY, 1000, 500, 50.0, 10.0, 50.0, 5.0),
        (STEADY, None, 500, 50.0, 10.0, None, 5.0),
        (STEADY, 500, 500, 50.0, 10.0, 0.0, 5.0),
        # twice as fast over the last ten lines, which alone count
        ([*STEADY, *(line(k, 25 + k / 20) for k in range(550, 1001, 50))], 2000, 1000, 75.0, 20.0, 50.0, 2.5),
        # stopped at 73, then resumed: the seconds go on where they stopped
        ([line(50, 5.0), line(73, 7.3), line(100, 10.0)], 200, 100, 10.0, 10.0, 10.0, 10 / 3),
        # a milestone is ahead of the last line, or written behind later lines
        ([line(50, 5.0), milestone(75, 7.5)], 200, 75, 7.5, 10.0, 12.5, 5.0),
        ([line(100, 10.0), line(50, 5.0), milestone(25, 2.5)], 200, 100, 10.0, 10.0, 10.0, 5.0),
        # four seconds were in vain
        ([line(50, 5.0), ROLLBACK, line(100, 14.0)], 200, 100, 14.0, 10.0, 10.0, 5.0),
        ([line(50, 5.0), ROLLBACK], 200, 50, 9.0, 10.0, 15.0, 5.0),
        # a clock that stood still tells no pace
        ([line(50, 0.0)], 200, 50, 0.0, None, None, 0.0),
    ],
    ids=[
        "nothing",
        "start",
        "one line",
        "steady",
        "no total",
        "end",
        "faster",
        "resumed",
        "ahead",
        "disorder",
        "rolled back",
        "just rolled back",
        "no clock",
    ],
)
def test_progress(records, total, iteration, seconds, pace, remaining, line_seconds):
    progress = Progress.of(records, total)
    assert (progress.iteration, progress.seconds) == (iteration, seconds)
    assert progress.pace == (None if pace is None else pytest.approx(pace))
    assert progress.remaining == (None if remaining is None else pytest.approx(remaining))
    assert progress.line_seconds == pytest.approx(line_seconds)


def test_the_last_losses_are_those_of_the_furthest_line():
    records = [line(100, 10.0, generator_loss=-3.0, gradient_norm=9.0), milestone(100, 10.0), line(50, 5.0), ROLLBACK]
    assert Progress.of(records, 200).losses == {"loss": 101.0, "generator_loss": -3.0}
    assert Progress.of([milestone(0, 0.0)], 200).losses == {}
    assert [record["iteration"] for record in log_lines(records)] == [50, 100]


@pytest.mark.parametrize(
    ("records", "evaluated", "silence", "state"),
    [
        ([], False, 5.0, "running"),
        ([], False, 121.0, "silent"),
        (STEADY, False, 119.0, "running"),
        (STEADY, True, 119.0, "running"),  # evaluated in the middle
        (STEADY, False, 121.0, "silent"),
        ([line(50, 60.0)], False, 299.0, "running"),  # a line a minute
        ([line(50, 60.0)], False, 301.0, "silent"),
        ([line(1000, 60.0)], False, 5.0, "evaluating"),
        ([line(1000, 60.0)], False, 301.0, "silent"),
        ([line(1000, 60.0)], True, 9e9, "finished"),
    ],
)
def test_state(records, evaluated, silence, state):
    progress = Progress.of(records, 1000)
    assert progress.state(evaluated, silence) == state
    assert progress.state(evaluated, silence, stopped=True) == ("finished" if state == "finished" else "stopped")


def test_numbers_and_times_in_words():
    seconds = [0, 59.9, 60, 100, 3600, 7500, 86399, 86400, 100_000]
    words = ["0 s", "59 s", "1 min", "1 min 40 s", "1 h", "2 h 5 min", "23 h 59 min", "1 d", "1 d 3 h"]
    assert [duration(s) for s in seconds] == words
    assert [short(v) for v in (4750.4, 99.96, 0.03123, -0.0999)] == ["4,750", "100", "0.0312", "−0.0999"]
