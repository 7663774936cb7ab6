"""Services that metrics go to: their names, and what becomes of a training when one of them fails."""

import sys
import threading
import time

import pytest
from logged import FLAT_METRICS, FLAT_MILESTONE, METRICS, MILESTONE

from simdistill.runs import logs
from simdistill.runs.logs import check_logs, flatten, open_logs

pytestmark = pytest.mark.usefixtures("offline")


def test_numbers_are_named_by_their_path():
    assert flatten({**METRICS, "rollback": "the loss is nan", "resumed": True, "none": None, "empty": {}}) == {
        "iteration": 50,
        **FLAT_METRICS,
    }
    assert flatten(MILESTONE) == {"iteration": 100, **FLAT_MILESTONE}


class TestNames:
    def test_an_unknown_one_is_refused_with_the_known_ones(self, run):
        with pytest.raises(ValueError, match=r"^--log = 'mlflow': must be one of tensorboard, wandb, trackio$"):
            open_logs(["tensorboard", "mlflow"], run)

    def test_one_that_comes_twice_is_refused(self):
        with pytest.raises(ValueError, match=r"^--log = 'wandb': must be given once$"):
            check_logs(["wandb", "tensorboard", "wandb"])

    @pytest.mark.parametrize("name", logs.SERVICES)
    def test_a_missing_library_is_named_before_any_service_starts(self, name, run, monkeypatch):
        monkeypatch.setitem(sys.modules, name, None)
        other = "wandb" if name != "wandb" else "trackio"
        monkeypatch.setitem(logs.SERVICES, other, lambda run: pytest.fail("started"))
        with pytest.raises(ValueError, match=rf'^--log {name}: .*pip install "simdistill\[{name}\]"$'):
            open_logs([other, name], run)

    def test_a_folder_of_the_name_is_no_library(self, tmp_path, monkeypatch):
        (tmp_path / "wandb").mkdir()  # what W&B itself leaves behind
        monkeypatch.delitem(sys.modules, "wandb", raising=False)
        monkeypatch.setattr(sys, "path", [str(tmp_path)])
        with pytest.raises(ValueError, match=r"^--log wandb: wandb is missing"):
            check_logs(["wandb"])

    def test_none_is_no_service(self, run):
        assert open_logs([], run) == []


class StandIn:
    """A service that fails at what it is told to fail at."""

    def __init__(self, fails=()):
        self.fails, self.heard, self.inside, self.most = fails, [], 0, 0

    def log_metrics(self, values):
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(0.002)
        self.inside -= 1
        self._hear("record", values)

    def picture(self, name, iteration, path):
        self._hear("picture", (name, iteration, path))

    def close(self):
        self._hear("close", None)

    def _hear(self, what, value):
        if what in self.fails:
            raise ConnectionError("the network\nis down")
        self.heard.append((what, value))


class TestFailures:
    def test_one_that_does_not_start_is_left_out(self, run, monkeypatch, capsys):
        def refuse(run):
            raise ConnectionError("no API key")

        monkeypatch.setitem(logs.SERVICES, "wandb", refuse)
        monkeypatch.setitem(logs.SERVICES, "trackio", lambda run: other)
        other = StandIn()
        (service,) = open_logs(["wandb", "trackio"], run)
        service.log_metrics(METRICS)
        assert other.heard == [("record", METRICS)]
        (line,) = capsys.readouterr().err.splitlines()
        assert "--log wandb did not start (no API key)" in line

    def test_later_ones_are_told_once_and_go_no_further(self, run, png, monkeypatch, capsys):
        service = StandIn(fails={"picture", "close"})
        monkeypatch.setitem(logs.SERVICES, "wandb", lambda run: service)
        (guarded,) = open_logs(["wandb"], run)
        guarded.picture("samples", 100, png[1])
        guarded.picture("samples", 200, png[1])
        guarded.log_metrics(METRICS)
        guarded.close()
        assert service.heard == [("record", METRICS)]
        (line,) = capsys.readouterr().err.splitlines()
        assert "--log wandb failed" in line
        assert "(the network is down)" in line

    def test_an_interrupt_is_not_a_failure(self, run, monkeypatch):
        service = StandIn()
        monkeypatch.setattr(service, "_hear", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        monkeypatch.setitem(logs.SERVICES, "wandb", lambda run: service)
        (guarded,) = open_logs(["wandb"], run)
        with pytest.raises(KeyboardInterrupt):
            guarded.log_metrics(METRICS)

    def test_without_a_login_to_wandb_the_training_goes_on(self, run, capsys, monkeypatch):
        import wandb

        wandb.teardown()  # it reads the environment anew
        monkeypatch.setenv("WANDB_MODE", "online")
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        try:
            assert open_logs(["wandb"], run) == []
        finally:
            wandb.teardown()
        assert "--log wandb did not start (No API" in capsys.readouterr().err


def test_threads_take_turns(run, monkeypatch):
    service = StandIn()
    monkeypatch.setitem(logs.SERVICES, "wandb", lambda run: service)
    (guarded,) = open_logs(["wandb"], run)
    threads = [threading.Thread(target=guarded.log_metrics, args=({"iteration": i},)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(values["iteration"] for _, values in service.heard) == list(range(8))
    assert service.most == 1
