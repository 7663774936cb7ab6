"""Requests to stop: polled where something is to be saved, an exit in order elsewhere, never an end by the signal."""

import os
import signal
import subprocess
import sys
import time

import pytest

from simdistill.support import stopping
from simdistill.support.stopping import signals_of_a_command, stop_requests


def send(*numbers):
    for number in numbers:
        os.kill(os.getpid(), number)


def test_requests_are_collected_and_the_handlers_restored():
    before = [signal.getsignal(number) for number in stopping.STOPPING]
    with stop_requests() as stop:
        send(signal.SIGTERM)
        assert stop == ["SIGTERM"]
    assert [signal.getsignal(number) for number in stopping.STOPPING] == before
    with stop_requests() as stop:
        assert stop == []


def test_blocks_within_each_other_see_the_same_requests():
    with stop_requests() as outer:
        with stop_requests() as inner:
            send(signal.SIGUSR1)
        assert outer == inner == ["SIGUSR1"]
        send(signal.SIGTERM)  # still handled


def test_the_same_request_comes_many_times_and_counts_once():
    """From a terminal's whole group, from torchrun, from a scheduler: all within a second."""
    with stop_requests() as stop:
        send(signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGTERM)
        assert stop == ["SIGINT"]


def test_an_impatient_ctrl_c_stops_at_once(monkeypatch):
    monkeypatch.setattr(stopping, "AT_ONCE", 0.0)
    with stop_requests() as stop:
        send(signal.SIGINT)
        assert stop == ["SIGINT"]
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_where_nobody_polls_a_command_ends_in_order(capsys):
    with signals_of_a_command(), pytest.raises(SystemExit) as ended:
        send(signal.SIGTERM)
    assert ended.value.code == 75
    assert "SIGTERM" in capsys.readouterr().err
    for number in stopping.STOPPING:  # the process would end now
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


PROGRAM = """
import os, signal, sys, time
from simdistill.support.stopping import Interrupted, signals_of_a_command, stop_requests
def work():
    with stop_requests() as stop:
        print("ready", flush=True)
        while not stop:
            time.sleep(0.01)
        raise Interrupted("saved", stop[0])
with signals_of_a_command():
    try:
        work()
    except Interrupted:
        time.sleep(0.5)  # a report is written
        code = 75
time.sleep(0.5)  # Python shuts down
sys.exit(code)
"""


@pytest.mark.parametrize(
    "numbers",
    [[signal.SIGTERM] * 5, [signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]],
    ids=["five times the same", "mixed"],
)
def test_five_requests_in_a_row_do_not_change_how_a_process_ends(numbers):
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    for number in numbers:
        if process.poll() is None:
            process.send_signal(number)
        time.sleep(0.1)
    assert process.wait(30) == 75
