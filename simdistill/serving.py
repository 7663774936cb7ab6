"""A page on a port of this machine, until Ctrl-C."""

import sys
from contextlib import suppress
from typing import Any

from simdistill.validation import require


def serve(application: Any, host: str, port: int, welcome: str) -> None:
    """Serve an ASGI application until Ctrl-C, with `welcome` on stderr.

    Raises `ValueError` if uvicorn is missing or the address cannot be had.
    """
    require(0 < port < 2**16, "--port", port, "in 1 … 65535")
    try:
        import uvicorn
    except ImportError as error:
        raise ValueError("uvicorn is missing: pip install uvicorn") from error
    server = uvicorn.Server(uvicorn.Config(application, host, port, log_level="error", server_header=False))
    print(welcome, file=sys.stderr)
    try:
        with suppress(KeyboardInterrupt):
            server.run()
    except SystemExit as error:  # uvicorn has said why
        raise ValueError(f"--host = {host!r}, --port = {port}: cannot be listened on; give another port") from error
