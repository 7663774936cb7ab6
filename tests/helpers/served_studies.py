"""A study that a process of its own serves, to be killed and started again."""

import http.client
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(folder, port):
    """The server's process, once it answers; none is left if it does not."""
    command = [sys.executable, "-m", "simdistill", "study", "serve", folder.path, "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    until = time.monotonic() + 240  # a busy machine takes long to import
    while time.monotonic() < until and process.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/study.css")
            connection.getresponse()
        except OSError:
            time.sleep(0.1)
        else:
            return process
    process.kill()
    process.wait()
    raise TimeoutError(f"nothing answers at port {port}")


@contextmanager
def served(folder):
    port = free_port()
    process = start(folder, port)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
