"""Requests to stop, by Ctrl-C or from a scheduler: work is saved first, and then ends with its own exit code."""

import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

STOPPING = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]  # Ctrl-C, and schedulers' notices
AT_ONCE = 1.0  # seconds after the first, from which on another Ctrl-C is an impatient one
QUEUED_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: a scheduler's job that may be queued again


class Interrupted(Exception):  # noqa: N818  (not an error)
    """The work was stopped by the signal `by`; everything is saved."""

    def __init__(self, message: str, by: str) -> None:
        super().__init__(message)
        self.by = by


class _Requests:
    """The requests so far; `polled` while somebody looks for them, `ending` once they have been acted upon."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.first, self.polled, self.ending = 0.0, 0, False

    def ask(self, number: int, frame: object) -> None:
        if self.ending or (self.asked and time.monotonic() - self.first < AT_ONCE):
            return  # the same request again: from a terminal's whole group, from torchrun, from a scheduler
        if number == signal.SIGINT and (self.asked or not self.polled):
            raise KeyboardInterrupt
        self.first = self.first if self.asked else time.monotonic()
        self.asked.append(signal.Signals(number).name)
        if not self.polled:
            print(f"stopped by {self.asked[0]}", file=sys.stderr, flush=True)
            sys.exit(QUEUED_AGAIN)


_requests: _Requests | None = None


@contextmanager
def stop_requests() -> Generator[list[str]]:
    """A list to which signals append their names, so that what is under way is never cut in two.

    Another Ctrl-C, a second or more later, stops at once. Signals may come several times without effect.
    """
    with _handled() as requests:
        requests.polled += 1
        try:
            yield requests.asked
        finally:
            requests.polled -= 1


@contextmanager
def signals_of_a_command() -> Generator[None]:
    """The signals of a whole process: where nobody polls, they end it in order, with temporary files deleted.

    Once there was a request they are ignored until the exit: a second one must not cut short what the first began.
    """
    with _handled() as requests:
        try:
            yield
        finally:
            requests.ending = bool(requests.asked)


@contextmanager
def _handled() -> Generator[_Requests]:
    """Handles the signals in the block, together with the blocks around it."""
    global _requests
    if _requests is not None and not _requests.ending:
        yield _requests
        return
    mine = _requests = _Requests()
    try:
        previous = {number: signal.signal(number, mine.ask) for number in STOPPING}
    except ValueError:  # not in the main thread: leave signals alone
        previous = {}
    try:
        yield mine
    finally:
        if not mine.ending:
            for number, handler in previous.items():
                signal.signal(number, handler)
            _requests = None
