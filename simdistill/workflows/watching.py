"""A live page of a run in progress, served to a browser: it reads the run's folder and touches nothing."""

import errno
import hashlib
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from simdistill.reports.report import Contents, Live, contents, page
from simdistill.runs.folder import RunFolder
from simdistill.support.checks import require

SECONDS = 3.0  # that a drawn page serves at least
SHARE = 20  # … and this many times as long as it took to draw, so that drawing takes at most 5 % of a core


def watch(out: str | Path, host: str = "127.0.0.1", port: int = 8765) -> None:
    """Serve the live page of the run `out` until Ctrl-C, and say on stderr where; 0 as `port` takes any free one.

    Takes a low priority: the run may share the machine. Raises `ValueError` if there is no such run, or the page cannot
    be served at this address.
    """
    with serve(LivePage(RunFolder.open(Path(out))), host, port) as server:
        port = server.server_port
        print(f"watching {out} at http://{host}:{port}/ (Ctrl-C ends the page, not the run)", file=sys.stderr)
        if host in ("127.0.0.1", "localhost"):
            remote = f"ssh -L {port}:localhost:{port} {socket.gethostname()}"
            print(f"from another machine: {remote}, then http://localhost:{port}/ there", file=sys.stderr)
        if hasattr(os, "nice"):
            os.nice(10)  # not lower: on a busy machine it would hardly get to draw
        with suppress(KeyboardInterrupt):
            server.serve_forever()


def serve(live: "LivePage", host: str, port: int) -> ThreadingHTTPServer:
    """A server of the page at the address, bound but not running yet; `ValueError` if the address cannot be had."""
    require(0 <= port < 2**16, "--port", port, "in 0 … 65535")
    try:
        return ThreadingHTTPServer((host, port), partial(_Handler, live))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ValueError(f"--port = {port}: is in use; give another, or 0 for any that is free") from error
        if error.errno == errno.EACCES:
            raise ValueError(f"--port = {port}: is not open to this user; give one from 1024 on") from error
        raise ValueError(f"--host = {host!r}: must be an address of this machine, as 127.0.0.1 ({error})") from error


class LivePage:
    """The page of a run, drawn anew only when its folder has changed, and never for more than a small share of time.

    Raises what reading the folder of `run` raises; once drawn, the last page stays while the folder is in flux.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run, self._lock = run, threading.Lock()  # matplotlib draws one page at a time
        self._seen = _shown_files(run)
        self._signs = 0.0
        self._contents: Contents = {}
        self._draw()

    def html(self) -> str:
        """The page as it stands."""
        with self._lock:
            files = _shown_files(self._run)
            if files != self._seen and time.monotonic() >= self._due:
                with suppress(OSError, ValueError):  # a file went between two looks at it: at the next look
                    self._draw()
                    self._seen = files
            return page(self._contents, self._live())

    def _draw(self) -> None:
        started = time.thread_time()  # on a busy machine the clock on the wall would count what the run takes
        self._contents = contents(self._run)
        self._due = time.monotonic() + max(SECONDS, SHARE * (time.thread_time() - started))

    def _live(self) -> Live:
        """Whether the run still lives: judged by the clock, so not kept with what is drawn."""
        self._signs = max([self._signs, *_changes(self._run)])
        silence = max(time.time() - self._signs, 0.0)
        evaluated = bool(self._contents["figures"]) or self._contents["who"] == "teacher"
        return Live(self._contents["progress"].state(evaluated, silence, self._run.stopped.exists()), silence)


def _shown_files(run: RunFolder) -> list[tuple[Path, int, int]]:
    """The files that the page is made of, with time and size."""
    found: list[tuple[Path, int, int]] = []
    for path in (run.config, run.metrics, run.evaluation, *sorted(run.picture("0").parent.glob("*.png"))):
        with suppress(OSError):
            status = path.stat()
            found.append((path, status.st_mtime_ns, status.st_size))
    return found


def _changes(run: RunFolder) -> list[float]:
    """When the files that a training leaves behind were last written."""
    times: list[float] = []
    for path in (run.config, run.metrics, run.checkpoints, run.network, run.start, run.picture("0").parent):
        with suppress(OSError):
            times.append(path.stat().st_mtime)
    return times


class _Handler(BaseHTTPRequestHandler):
    """Answers GET / and nothing else."""

    timeout = 30.0  # of a connection that says nothing

    def __init__(self, live: LivePage, *arguments: Any) -> None:
        self._live = live
        super().__init__(*arguments)

    def do_GET(self) -> None:
        if self.path != "/":
            return self.send_error(404)
        content = self._live.html().encode()
        tag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
        unchanged = self.headers.get("If-None-Match") == tag
        self.send_response(304 if unchanged else 200)
        self.send_header("ETag", tag)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        if not unchanged:
            with suppress(ConnectionError, TimeoutError):  # the reader has left
                self.wfile.write(content)
        return None

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: the terminal is for the address."""
