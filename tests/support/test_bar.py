"""Bars: what they tell, and that no phase is without a line where there is no terminal."""

import subprocess
import sys
import threading

import pytest

from simdistill.support import bar
from simdistill.support.bar import Bar, duration, progress_bar


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.9, "59 s"), (60, "1 min"), (100, "1 min 40 s"), (7500, "2 h 5 min"), (273_600, "3 d 4 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_the_time_left_follows_from_the_pace(monkeypatch):
    """500 of 2,000 were done before; 300 more took a minute: the other 1,200 take four."""
    now = [1000.0]
    monkeypatch.setattr(bar.time, "monotonic", lambda: now[0])
    it = Bar("training", 2000, done=500)
    assert it.told == "500/2,000"
    now[0] += 60
    it(300)
    it.note = "512 samples/s"
    assert it.told == "800/2,000, 4 min left, 512 samples/s"
    it(1200)
    assert it.told == "2,000/2,000, 512 samples/s"


def test_without_a_total_the_time_passed_is_told(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(bar.time, "monotonic", lambda: now[0])
    it = Bar("loading", None)
    now[0] += 75
    assert it.told == "1 min 15 s"


def test_lines_come_without_a_terminal_even_if_nothing_advances(monkeypatch, capsys):
    """Two bars of different threads are told in turn, by their names."""
    monkeypatch.setattr(bar, "LINE_SECONDS", 0.1)
    both, told = threading.Event(), threading.Event()

    def work():
        with progress_bar("drawing the reference", 10):
            both.set()
            told.wait(10)

    other = threading.Thread(target=work)
    with progress_bar("training", 200) as it:
        it(50)
        other.start()
        assert both.wait(10)
        shown = ""
        for _ in range(200):
            told.wait(0.05)
            shown += capsys.readouterr().err
            if shown.count("training: 50/200") >= 2 and "drawing the reference: 0/10" in shown:
                break
        else:
            pytest.fail(f"only {shown!r}")
        told.set()
    other.join()


def test_nothing_is_shown_by_other_processes(monkeypatch, capsys):
    monkeypatch.setattr(bar, "LINE_SECONDS", 0.01)
    with progress_bar("training", 10, shown=False) as it:
        it(5)
        it.say("a line")
    assert capsys.readouterr().err == ""


def test_on_a_terminal_there_is_a_live_bar():
    """In a pseudo-terminal: the name, the count and the line above the bar are drawn."""
    program = (
        "import pty, os, sys\n"
        "def read(fd):\n"
        "    data = os.read(fd, 4096)\n"
        "    return data\n"
        "inner = 'import time; from simdistill.support.bar import progress_bar\\n'\\\n"
        "        'with progress_bar(\"training\", 40) as b:\\n'\\\n"
        "        '    b(10); b.say(\"a milestone\"); time.sleep(0.4)'\n"
        "sys.exit(os.waitstatus_to_exitcode(pty.spawn([sys.executable, '-c', inner], read)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "a milestone" in done.stdout
    assert "training" in done.stdout
    assert "10/40" in done.stdout
