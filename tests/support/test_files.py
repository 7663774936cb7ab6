"""Files are whole or not there, what kills left is removed, and what cannot be written is told before the work."""

import os
import signal
import subprocess
import sys
import time

import pytest

from simdistill.runs.folder import RunFolder
from simdistill.support import locks
from simdistill.support.files import (
    check_output,
    is_temporary,
    remove_leftovers,
    replacing,
    temporary_folder,
    write_atomically,
)

WRITE = """
import sys, time
from pathlib import Path
from simdistill.support.files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""
MAKE = """
import sys, time
from pathlib import Path
from simdistill.support.files import temporary_folder
with temporary_folder(Path(sys.argv[1])) as folder:
    (folder / "part").mkdir()
    (folder / "part" / "weights").write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer():
    """Processes that are in the middle of writing a file."""
    found = []

    def started(path, code=WRITE):
        found.append(subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True))
        assert found[-1].stdout.readline() == "ready\n"
        return found[-1]

    yield started
    for process in found:
        process.kill()
        process.communicate()


def killed(process):
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_only_what_the_killed_left_is_removed(tmp_path, writer):
    killed(writer(tmp_path / "a.npz"))
    killed(writer(tmp_path / "b.npz"))
    writer(tmp_path / "a.npz")  # alive
    theirs = [".a.npz.swp", ".a.npz.x1y2z3w4", "a.npz.simdistill-12345678"]
    for name in theirs:
        (tmp_path / name).touch()
    assert sum(map(is_temporary, tmp_path.iterdir())) == 3
    remove_leftovers(tmp_path, "a.npz")
    assert [path.name[:7] for path in tmp_path.iterdir() if is_temporary(path)].count(".a.npz.") == 1
    assert sum(map(is_temporary, tmp_path.iterdir())) == 2
    remove_leftovers(tmp_path)
    assert sum(map(is_temporary, tmp_path.iterdir())) == 1
    assert set(theirs) < set(names(tmp_path))


def test_half_made_folders_are_removed_whatever_their_name(tmp_path, writer):
    path = tmp_path / "my [pipeline]*"
    killed(writer(path, MAKE))
    killed(writer(tmp_path / "my p", MAKE))
    killed(writer(path.with_name("another"), MAKE))
    check_output(path, folder=True)
    assert sorted(name[:9] for name in names(tmp_path)) == [".another.", ".my p.sim"]
    with temporary_folder(path) as folder:
        (folder / "a").mkdir()
        remove_leftovers(tmp_path)
        assert names(tmp_path) == [folder.name]
        (folder / "a").rename(path)
    assert names(tmp_path) == [path.name]


def test_a_run_is_gone_on_with_without_them(tmp_path, writer):
    run = RunFolder.create(tmp_path / "run", {"verb": "distill"})
    for path in (run.checkpoints / "000000050.safetensors", run.network, run.picture("student")):
        killed(writer(path))
    assert sum(map(is_temporary, run.path.rglob("*"))) == 3
    with run.locked():
        assert not any(map(is_temporary, run.path.rglob("*")))


def test_a_run_that_was_killed_before_its_first_file_leaves_a_folder_to_begin_in(tmp_path, writer):
    killed(writer(tmp_path / "run" / "config.toml"))
    run = RunFolder.create(tmp_path / "run", {"verb": "distill"})
    assert names(run.path) == [".lock", "config.toml"]


def test_the_same_output_again_removes_what_was_left_of_it(tmp_path, writer):
    killed(writer(tmp_path / "ref.npz"))
    check_output(tmp_path / "ref.npz")
    assert names(tmp_path) == []


def test_without_locks_nothing_is_removed_and_files_are_still_written(tmp_path, writer, monkeypatch):
    killed(writer(tmp_path / "a"))
    monkeypatch.setattr(locks, "_fcntl", lambda: None)
    remove_leftovers(tmp_path)
    write_atomically(tmp_path / "a", b"whole")
    assert (tmp_path / "a").read_bytes() == b"whole"
    assert len(names(tmp_path)) == 2


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_atomically(tmp_path / "a", b"old")

    def fail():
        with replacing(tmp_path / "a") as temporary:
            temporary.write_bytes(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize("folder", [False, True])
def test_outputs_that_cannot_be_written(tmp_path, folder):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    before = {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.iterdir()]}
    for path in ("/proc/x", "/proc/x/y.npz", tmp_path / "file" / "x", tmp_path / ("x" * 300)):
        with pytest.raises(ValueError, match=r"--out = .*: cannot be written \([a-z ]+\); give another --out"):
            check_output(type(tmp_path)(path), folder)
    wrong = tmp_path / ("file" if folder else "folder")
    with pytest.raises(ValueError, match="is a file; give a folder" if folder else "is a folder; give a file"):
        check_output(wrong, folder)
    time.sleep(0.01)
    for path in ("new", "a/b/c", "folder" if folder else "file"):
        check_output(tmp_path / path, folder)
    assert {path for path in before if path != tmp_path} == set(tmp_path.iterdir())
