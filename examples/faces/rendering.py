"""Pictures of faces by DiceBear's "Pixel Art" (art CC0, code MIT), drawn by node; npm downloads it once."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from simdistill.support.files import write_atomically

EDGE = 16  # pixels; the art has no finer ones
SOURCES = ("package.json", "render.mjs")


def folder() -> Path:
    """The folder of the packages, in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "simdistill" / "faces"


def install() -> None:
    """Install the packages at the versions of package.json; `ValueError` without node or npm, or if npm fails."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise ValueError(f"{program} = None: must be on the PATH: install Node.js 18 or newer (https://nodejs.org)")
    at = folder()
    for name in SOURCES:
        write_atomically(at / name, (Path(__file__).parent / name).read_bytes())
    if _installed() == _asked():
        return
    command = ["npm", "install", "--prefix", str(at), "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=at, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{' '.join(command)}: failed; is npm's registry reachable? {done.stderr[-500:]}")


def render(faces: Sequence[dict[str, Any]]) -> UInt8[NDArray[Any], "faces 16 16 3"]:
    """RGB pictures of DiceBear's options, after `install`; `ValueError` if node fails, such as for a wrong option."""
    lines = "".join(json.dumps(options) + "\n" for options in faces)
    command = ["node", str(folder() / "render.mjs")]
    done = subprocess.run(command, input=lines.encode(), capture_output=True, check=False)
    expected = len(faces) * EDGE * EDGE * 3
    if done.returncode or len(done.stdout) != expected:
        said = done.stderr.decode(errors="replace")[-500:]
        raise ValueError(f"{' '.join(command)}: {len(done.stdout)} bytes instead of {expected}: {said}")
    return np.frombuffer(done.stdout, np.uint8).reshape(len(faces), EDGE, EDGE, 3)


def _asked() -> dict[str, str]:
    return json.loads((Path(__file__).parent / "package.json").read_text(encoding="utf-8"))["dependencies"]


def _installed() -> dict[str, str]:
    """The versions that lie in the folder."""
    files = {name: folder() / "node_modules" / name / "package.json" for name in _asked()}
    return {name: json.loads(file.read_text("utf-8"))["version"] for name, file in files.items() if file.is_file()}
