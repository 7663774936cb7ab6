"""A run that is watched: a server that shows it and leaves it alone."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from records import line, milestone

from simdistill.cli import main
from simdistill.runs.folder import RunFolder
from simdistill.workflows import watching
from simdistill.workflows.watching import LivePage, serve


@pytest.fixture
def run(tmp_path):
    run = RunFolder.create(tmp_path / "runs" / "mine", {"verb": "distill", "batch": 64, "iterations": 1000})
    run.log_metrics(milestone(0, 0.0))
    run.log_metrics(line(50, 5.0))
    return run


@contextmanager
def serving(live):
    """The port of a server that runs meanwhile."""
    with serve(live, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def ask(port, path="/", method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, answer.headers, body


def iteration(body):
    return re.findall(r"<dt>Iteration</dt><dd>(.*?)</dd>", body)


def test_the_page_follows_the_run(run, monkeypatch):
    monkeypatch.setattr(watching, "SECONDS", 0.0)
    monkeypatch.setattr(watching, "SHARE", 0)
    with serving(LivePage(run)) as port:
        status, headers, body = ask(port)
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert iteration(body) == ["50 of 1,000"]
        status, _, nothing = ask(port, If_None_Match=headers["ETag"])
        assert (status, nothing) == (304, "")
        run.log_metrics(line(100, 10.0))
        with run.metrics.open("a") as file:
            file.write('{"iteration": 150, "seco')  # caught while it is written
        status, renewed, body = ask(port, If_None_Match=headers["ETag"])
        assert (status, iteration(body)) == (200, ["100 of 1,000"])
        assert renewed["ETag"] != headers["ETag"]


def test_silence_shows_though_nothing_changes(run):
    with serving(LivePage(run)) as port:
        assert "Running" in ask(port)[2]
    long_ago = time.time() - 630
    for path in (run.config, run.metrics):
        os.utime(path, (long_ago, long_ago))
    live = LivePage(run)
    assert "No output for 10 min" in live.html()
    run.checkpoints.mkdir()  # not on the page, but it is a sign
    assert "No output" not in live.html()
    run.stopped.touch()
    assert "Stopped" in live.html()
    assert "Everything is saved; resume it with" in live.html()
    run.stopped.unlink()
    assert "Running" in live.html()


def test_there_is_one_page_which_can_only_be_looked_at(run):
    run.report.write_text("iterations")
    with serving(LivePage(run)) as port:
        for path in (
            "/config.toml",
            "/../config.toml",
            "/report.html",
            "/?run=other",
            "/favicon.ico",
            "/%2e%2e/",
            "/.",
        ):
            status, _, body = ask(port, path)
            assert (status, "iterations" in body) == (404, False), path
        for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS"):
            assert ask(port, method=method)[0] == 501, method


def test_the_page_is_behind_the_same_door_as_the_others(run):
    with serving(LivePage(run)) as port:
        answers = [ask(port), ask(port, Host="evil.example"), ask(port, "/missing")]
    assert [status for status, *_ in answers] == [200, 421, 404]
    for _, headers, _ in answers:
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Server"] == "simdistill"


def everything(folder):
    found = {path: path.stat() for path in (folder, *folder.rglob("*"))}
    return {path: (status.st_mtime_ns, status.st_size, status.st_mode) for path, status in found.items()}


def test_the_run_is_left_as_it_is(run):
    run.picture("x").parent.mkdir()
    before = everything(run.path.parent)
    with serving(LivePage(run)) as port:
        for path in ("/", "/", "/report.html"):
            ask(port, path)
    assert everything(run.path.parent) == before


@pytest.fixture
def counted(monkeypatch):
    """Clocks that stand still but for drawing, which takes two seconds; and how often was drawn."""
    clock, draw = SimpleNamespace(now=1000.0, drawn=0), watching.contents

    def drawing(run):
        clock.drawn += 1
        return draw(run)

    monkeypatch.setattr(watching, "contents", drawing)
    clocks = {"monotonic": lambda: clock.now, "thread_time": lambda: 2.0 * clock.drawn, "time": time.time}
    monkeypatch.setattr(watching, "time", SimpleNamespace(**clocks))
    return clock


def test_an_open_page_costs_almost_nothing(run, counted):
    live = LivePage(run)
    for _ in range(5):
        counted.now += 3600
        live.html()
    assert counted.drawn == 1  # nothing has changed
    run.log_metrics(line(100, 10.0))
    live.html()
    assert counted.drawn == 2
    run.log_metrics(line(150, 15.0))
    counted.now += 39.9  # drawing took 2 s: the next is due after 40
    assert iteration(live.html()) == ["100 of 1,000"]
    counted.now += 0.2
    assert iteration(live.html()) == ["150 of 1,000"]
    assert counted.drawn == 3


def test_drawing_is_never_hurried(run, counted, monkeypatch):
    monkeypatch.setattr(watching, "SHARE", 1e-9)
    live = LivePage(run)
    run.log_metrics(line(100, 10.0))
    counted.now += 2.9
    assert iteration(live.html()) == ["50 of 1,000"]
    counted.now += 0.2
    assert iteration(live.html()) == ["100 of 1,000"]


def test_a_folder_in_flux_keeps_the_last_page(run, monkeypatch):
    monkeypatch.setattr(watching, "SECONDS", 0.0)
    monkeypatch.setattr(watching, "SHARE", 0)
    live = LivePage(run)
    config = run.config.read_text()
    run.config.unlink()
    run.log_metrics(line(100, 10.0))
    assert iteration(live.html()) == ["50 of 1,000"]
    run.config.write_text(config)
    assert iteration(live.html()) == ["100 of 1,000"]
    run.evaluation.write_text('{"half')
    assert iteration(live.html()) == ["100 of 1,000"]


def error(capsys, *words):
    assert main(["watch", *(str(word) for word in words)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_bad_requests(run, tmp_path, capsys):
    assert "RUN is missing" in error(capsys)
    assert "not a run's folder" in error(capsys, tmp_path)
    assert "--port = 70000: must be in 0 … 65535" in error(capsys, run.path, "--port", 70000)
    nowhere = error(capsys, run.path, "--host", "203.0.113.9")
    assert "--host = '203.0.113.9': must be" in nowhere
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"--port = {port}: is in use; give another, or 0" in error(capsys, run.path, "--port", port)


@pytest.mark.slow
def test_the_command_tells_where_and_ends_with_ctrl_c(run):
    command = [sys.executable, "-m", "simdistill", "watch", str(run.path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watcher:
        try:
            assert watcher.stderr is not None
            address = watcher.stderr.readline()
            (port,) = re.findall(r"http://127\.0\.0\.1:(\d+)/", address)
            assert f"ssh -L {port}:localhost:{port} " in watcher.stderr.readline()
            assert iteration(ask(int(port))[2]) == ["50 of 1,000"]
            watcher.send_signal(signal.SIGINT)
            out, rest = watcher.communicate(timeout=60)
        finally:
            watcher.kill()  # what went wrong is told at once: leaving the block waits for its end
    assert (watcher.returncode, out, rest) == (0, "", "")


def test_a_finished_run_is_shown_as_its_report(run):
    run.log_metrics(line(1000, 100.0))
    live = LivePage(run)
    assert "Trained, evaluating" in live.html()
    sampler = milestone(0, 0.0)["quality"] | {"nfe": 1, "images_per_second": 10.0, "samples": 2}
    sampler |= dict.fromkeys(("density", "coverage", "kernel", "energy", "sliced_wasserstein"), 0.5)
    figures = dict.fromkeys(("teacher", "student", "undistilled"), sampler)
    run.evaluation.write_text(json.dumps({**figures, "real": None, "speedup": 1.0, "reference": "few"}))
    assert "Finished" in LivePage(run).html()
    assert "Reference: few" in LivePage(run).html()
