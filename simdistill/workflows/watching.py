"""A live page of a run in progress, served to a browser; it only reads the run's folder."""

import errno
import hashlib
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from simdistill.reports.report import Contents, Live, contents, page
from simdistill.runs.folder import RunFolder
from simdistill.support.checks import require
from simdistill.web.hosts import HEADERS, Hosts, unknown

INLINE = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
SECONDS = 3.0  # minimum lifetime of a rendered page …
SHARE = 20  # … and at least this many times the time to render it, so that rendering takes at most 5 % of a core


def watch(out: str | Path, host: str = "127.0.0.1", port: int = 8765, names: Sequence[str] = ()) -> None:
    """Serve the live page of the run `out` until Ctrl-C; prints its address to stderr. Port 0 takes any free port.

    It answers to the host and to the public `names`.

    Runs at low priority, because the run may be on the same machine. Raises `ValueError` if there is no such run, or if
    the page cannot be served at this address.
    """
    with serve(LivePage(RunFolder.open(Path(out))), host, port, names) as server:
        port = server.server_port
        print(f"watching {out} at http://{host}:{port}/ (Ctrl-C stops the page, not the run)", file=sys.stderr)
        if host in ("127.0.0.1", "localhost"):
            remote = f"ssh -L {port}:localhost:{port} {socket.gethostname()}"
            print(f"from another machine: {remote}, then open http://localhost:{port}/ there", file=sys.stderr)
        if hasattr(os, "nice"):
            os.nice(10)  # not lower: on a busy machine it would hardly get to render
        with suppress(KeyboardInterrupt):
            server.serve_forever()


def serve(live: "LivePage", host: str, port: int, names: Sequence[str] = ()) -> ThreadingHTTPServer:
    """A server of the page, bound to the address but not running yet; `ValueError` if it cannot be bound."""
    require(0 <= port < 2**16, "--port", port, "in 0 … 65535")
    try:
        return ThreadingHTTPServer((host, port), partial(_Handler, live, Hosts(host, names)))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ValueError(f"--port = {port}: is in use; give another, or 0 for any free port") from error
        if error.errno == errno.EACCES:
            raise ValueError(f"--port = {port}: not allowed for this user; give a port of 1024 or above") from error
        raise ValueError(f"--host = {host!r}: must be this machine's address, such as 127.0.0.1 ({error})") from error


class LivePage:
    """The page of a run, rendered again only when its folder has changed, with limited CPU time.

    Raises the errors of reading the run's folder at the start; later, the last page stays while the folder changes.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run, self._lock = run, threading.Lock()  # matplotlib is not thread-safe
        self._seen = _shown_files(run)
        self._signs = 0.0
        self._contents: Contents = {}
        self._draw()

    def html(self) -> str:
        """The current page."""
        with self._lock:
            files = _shown_files(self._run)
            if files != self._seen and time.monotonic() >= self._due:
                with suppress(OSError, ValueError):  # a file disappeared meanwhile: try again at the next request
                    self._draw()
                    self._seen = files
            return page(self._contents, self._live())

    def _draw(self) -> None:
        started = time.thread_time()  # wall-clock time would include the time that the run takes
        self._contents = contents(self._run)
        self._due = time.monotonic() + max(SECONDS, SHARE * (time.thread_time() - started))

    def _live(self) -> Live:
        """The state of the run, which depends on the clock and is therefore not kept with the contents."""
        self._signs = max([self._signs, *_changes(self._run)])
        silence = max(time.time() - self._signs, 0.0)
        evaluated = bool(self._contents["figures"]) or self._contents["who"] == "teacher"
        return Live(self._contents["progress"].state(evaluated, silence, self._run.stopped.exists()), silence)


def _shown_files(run: RunFolder) -> list[tuple[Path, int, int]]:
    """The files that the page shows, with times and sizes."""
    found: list[tuple[Path, int, int]] = []
    for path in (run.config, run.metrics, run.evaluation, *sorted(run.picture("0").parent.glob("*.png"))):
        with suppress(OSError):
            status = path.stat()
            found.append((path, status.st_mtime_ns, status.st_size))
    return found


def _changes(run: RunFolder) -> list[float]:
    """The times at which the training's files were last written."""
    times: list[float] = []
    for path in (run.config, run.metrics, run.checkpoints, run.network, run.start, run.picture("0").parent):
        with suppress(OSError):
            times.append(path.stat().st_mtime)
    return times


class _Handler(BaseHTTPRequestHandler):
    """Answers only GET /."""

    timeout = 30.0  # of an idle connection

    def __init__(self, live: LivePage, hosts: Hosts, *arguments: Any) -> None:
        self._live, self._hosts = live, hosts
        super().__init__(*arguments)

    def do_GET(self) -> None:
        asked = ", ".join(self.headers.get_all("Host", []))
        if not self._hosts.know(asked):
            return self.send_error(421, unknown(asked))
        if self.path != "/":
            return self.send_error(404)
        content = self._live.html().encode()
        tag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
        unchanged = self.headers.get("If-None-Match") == tag
        self.send_response(304 if unchanged else 200)
        self.send_header("ETag", tag)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        if not unchanged:
            with suppress(ConnectionError, TimeoutError):  # the client has disconnected
                self.wfile.write(content)
        return None

    def end_headers(self) -> None:
        """Add the security headers of all our servers; the page has its pictures, style and script in it."""
        for name, value in {**HEADERS, "Content-Security-Policy": INLINE}.items():
            self.send_header(name, value)
        super().end_headers()

    def version_string(self) -> str:
        """The Server header: not Python's version."""
        return "simdistill"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log nothing: the terminal shows only the address."""
