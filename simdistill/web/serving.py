"""Serve a web application on a port of this machine until Ctrl-C."""

import errno
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from simdistill.support.checks import require
from simdistill.web.hosts import EVERY, Hosts

WHY = {
    errno.EADDRINUSE: "a free port: this one is in use",
    errno.EACCES: "a port that this user may use: 1024 or above",
    errno.EPERM: "a port that this user may use: 1024 or above",
}
"""What a port must be, by the error that it gave."""


def serve(
    application: Any, host: str, port: int, welcome: str, names: Sequence[str] = (), proxies: Sequence[str] = ()
) -> None:
    """Serve an ASGI application behind the `Door` until Ctrl-C; prints `welcome` to stderr once it listens.

    It answers to the host, and to the public `names` that it is given; what a request says of its client's address is
    believed if it comes from one of the `proxies`. Raises `ValueError` if uvicorn is missing, or if the server cannot
    listen at this address.
    """
    require(0 < port < 2**16, "--port", port, "in 1 … 65535")
    try:
        import uvicorn

        from simdistill.web.door import Door, settings
    except ImportError as error:
        raise ValueError(f'{error.name} is missing: pip install "simdistill[demo]"') from error
    behind = Door(application, Hosts(host, names))
    server = uvicorn.Server(uvicorn.Config(behind, host, port, **settings(proxies)))
    with _listening(host, port) as found:
        print(welcome, file=sys.stderr)
        with suppress(KeyboardInterrupt):
            server.run(sockets=[found])


def address(host: str, port: int) -> str:
    """The URL for browsers; a server that listens on all addresses is named by this machine's name."""
    name = socket.gethostname() if host in EVERY else host
    return f"http://{f'[{name}]' if ':' in name else name}:{port}/"


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens at this address; `ValueError` if it cannot."""
    try:
        family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        if error.errno in WHY:
            raise ValueError(f"--port = {port}: must be {WHY[error.errno]}") from error
        own = "an address of this machine, such as 127.0.0.1, or 0.0.0.0 for all of them"
        raise ValueError(f"--host = {host!r}: must be {own} ({error.strerror})") from error
