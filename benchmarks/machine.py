"""The machine of the measurements, and separate processes for them."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parent.parent


def describe() -> dict[str, Any]:
    """The machine, the versions and the date."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
    }


def fresh(module: str, *arguments: str, threads: int, environment: Mapping[str, str] | None = None) -> Any:
    """What `python -m benchmarks.module arguments` prints as its last line, JSON, in a separate process.

    Raises `RuntimeError` with its stderr if it fails.
    """
    return finish(start([sys.executable, "-m", f"benchmarks.{module}", *arguments], threads, environment))


def start(command: list[str], threads: int, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start a process with `threads` threads that do not spin while they wait, and with libraries kept compiled."""
    settings = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive", **(environment or {})}
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.Popen(
        command, env={**kept, **settings}, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> Any:
    """The JSON in the last line of a process's stdout; `RuntimeError` if it failed."""
    output, errors = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"{process.args} ended with {process.returncode}:\n{errors[-3000:]}")
    return json.loads(output.strip().splitlines()[-1])


def matmul_peak(seconds: float = 1.0) -> float:
    """Peak FLOP/s of float32 matrix products, over several sizes."""
    best = 0.0
    for size in (512, 1024, 2048):
        a, b = torch.randn(size, size), torch.randn(size, size)
        end = time.perf_counter() + seconds / 3
        while time.perf_counter() < end:
            started = time.perf_counter()
            torch.mm(a, b)
            best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
