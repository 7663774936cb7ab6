"""The README's Python example runs as it stands."""

import re
from pathlib import Path

import pytest

from simdistill.runs.folder import RunFolder


@pytest.mark.slow
def test_the_python_example(tmp_path, monkeypatch):
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert RunFolder.open(tmp_path / "runs" / "mine").report.exists()
    assert names["images"].shape == (64, 2)
