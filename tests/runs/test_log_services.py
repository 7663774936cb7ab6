"""Values and pictures as TensorBoard, Weights & Biases and trackio themselves read them back; none needs a network."""

import io
import json
import sqlite3
import struct
import threading
import time

import numpy as np
import pytest
from logged import CONFIG, FLAT_METRICS, FLAT_MILESTONE, METRICS, MILESTONE
from PIL import Image

from simdistill.runs.folder import RunFolder
from simdistill.runs.logs import open_logs

pytestmark = pytest.mark.usefixtures("offline")


def tell(run, service, *records):
    """Record as a training does: in the run's folder, and in the services."""
    for values in records:
        run.log_metrics(values)
        service.log_metrics(values)


def pixels_of(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded)))


class TestTensorBoard:
    @pytest.fixture(autouse=True)
    def in_order(self, monkeypatch):
        """Readers sort event files by second, process and a counter as text, of which ten come before nine."""
        from tensorboard.summary.writer import event_file_writer

        monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))

    @staticmethod
    def read(run):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        everything = {"scalars": 0, "images": 0, "tensors": 0}
        return EventAccumulator(str(run.path / "tensorboard"), size_guidance=everything).Reload()

    def curves(self, run):
        events = self.read(run)
        curves = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
        return {tag: curve for tag, curve in curves.items() if curve}  # without those that are void altogether

    def pictures(self, run):
        events = self.read(run)
        return [(tag, e.step, e.encoded_image_string) for tag in events.Tags()["images"] for e in events.Images(tag)]

    def test_holds_the_numbers_the_picture_and_the_configuration(self, run, png):
        (service,) = open_logs(["tensorboard"], run)
        tell(run, service, METRICS, MILESTONE)
        service.picture("samples", 100, png[1])
        service.close()
        assert self.curves(run) == {
            "online_loss": [(50, 0.25)],
            "levels/y_norm/0.0316": [(50, 1.5)],
            "levels/y_norm/1": [(50, 2.0)],
            "seconds": [(50, 1.5), (100, 9.0)],
            "quality/frechet/mean": [(100, 0.5)],
            "quality/frechet/std": [(100, 0.125)],
            "quality/frechet/seeds": [(100, 2.0)],
        }
        ((tag, step, encoded),) = self.pictures(run)
        assert (tag, step) == ("samples", 100)
        np.testing.assert_array_equal(pixels_of(encoded), png[0])
        (text,) = self.read(run).Tensors("config/text_summary")
        assert text.tensor_proto.string_val[0].decode() == f"```toml\n{run.config.read_text()}```"

    def test_has_what_was_recorded_without_being_closed(self, run):
        (service,) = open_logs(["tensorboard"], run)
        service.log_metrics(METRICS)
        assert self.curves(run)["online_loss"] == [(50, 0.25)]

    @pytest.mark.parametrize("cut_first", [True, False])
    def test_a_resumed_run_voids_what_it_does_again(self, run, png, cut_first):
        (service,) = open_logs(["tensorboard"], run)
        tell(run, service, *({"iteration": i, "loss": float(i)} for i in (0, 50, 100)))
        service.picture("samples", 100, png[1])
        tell(run, service, {"iteration": 125, "quality": {"share": 1.0}}, {"iteration": 150, "loss": 150.0})
        service.picture("samples", 125, png[1])  # … then it is killed, and its last checkpoint is of iteration 100

        if cut_first:
            run.forget_after(100)
        (service,) = open_logs(["tensorboard"], run)
        run.forget_after(100)
        tell(run, service, {"iteration": 150, "loss": -150.0})
        service.close()
        assert self.curves(run) == {"loss": [(0, 0.0), (50, 50.0), (100, 100.0), (150, -150.0)]}
        assert [(tag, step) for tag, step, _ in self.pictures(run)] == [("samples", 100)]

    def test_a_run_that_begins_anew_voids_everything(self, run):
        for loss in (1.0, 2.0):
            run.forget_after(-1)
            (service,) = open_logs(["tensorboard"], run)
            tell(run, service, {"iteration": 0, "loss": loss})
            service.close()
        assert self.curves(run) == {"loss": [(0, 2.0)]}

    def test_a_rollback_voids_what_came_after_it(self, run, png):
        (service,) = open_logs(["tensorboard"], run)
        tell(run, service, *({"iteration": i, "loss": float(i)} for i in (50, 100, 150, 200)))
        service.picture("samples", 150, png[1])
        tell(run, service, {"iteration": 100, "rollback": "the loss is nan", "rate": 0.5})
        tell(run, service, {"iteration": 150, "loss": -150.0})
        service.close()
        assert self.curves(run) == {"loss": [(50, 50.0), (100, 100.0), (150, -150.0)], "rate": [(100, 0.5)]}
        assert self.pictures(run) == []

    def test_a_late_measurement_voids_nothing(self, run):
        (service,) = open_logs(["tensorboard"], run)
        tell(run, service, *({"iteration": i, "loss": float(i)} for i in (50, 100, 150)))
        tell(run, service, {"iteration": 100, "quality": {"share": 0.5}})
        service.close()
        assert self.curves(run) == {"loss": [(50, 50.0), (100, 100.0), (150, 150.0)], "quality/share": [(100, 0.5)]}


class TestWandb:
    @staticmethod
    def parsed(data):
        """The records of an offline run's file: protocol buffers in LevelDB's log, in parts of up to 32 KiB."""
        from wandb.proto.wandb_internal_pb2 import Record

        at, whole = 7, b""
        while at + 7 < len(data):
            if 32768 - at % 32768 < 7:
                at += 32768 - at % 32768
            length, part = struct.unpack_from("<HB", data, at + 4)
            if at + 7 + length > len(data):
                break
            whole, at = whole + data[at + 7 : at + 7 + length], at + 7 + length
            if part in (1, 4):  # whole, or the last part
                record, whole = Record.FromString(whole), b""
                yield record.WhichOneof("record_type"), record

    def stored(self, folder):
        """The records of an offline run that has ended; W&B writes them in a process of its own, a little later."""
        for _ in range(500):
            found = [record for path in folder.glob("*.wandb") for record in self.parsed(path.read_bytes())]
            if any(kind == "exit" for kind, _ in found):
                return found
            time.sleep(0.02)
        pytest.fail(f"{folder}: has no end")

    def rows(self, folder):
        """What was logged, less what W&B adds."""
        rows = [record.history for kind, record in self.stored(folder) if kind == "history"]
        named = [{"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in row.item} for row in rows]
        return [{name: value for name, value in row.items() if not name.startswith("_")} for row in named]

    def start(self, folder):
        (started,) = (record.run for kind, record in self.stored(folder) if kind == "run")
        return started

    def test_holds_the_numbers_the_picture_and_the_configuration(self, run, png, capsys):
        (service,) = open_logs(["wandb"], run)
        service.log_metrics(METRICS)
        service.log_metrics(MILESTONE)
        service.picture("samples", 125, png[1])
        service.close()
        (folder,) = (run.path / "wandb").glob("offline-run-*")
        metrics, milestone, picture = self.rows(folder)
        assert metrics == {"iteration": 50, **FLAT_METRICS}
        assert milestone == {"iteration": 100, **FLAT_MILESTONE}
        assert picture["iteration"] == 125
        assert (picture["samples/_type"], picture["samples/width"], picture["samples/height"]) == ("image-file", 5, 4)
        np.testing.assert_array_equal(pixels_of((folder / "files" / picture["samples/path"]).read_bytes()), png[0])

        started = self.start(folder)
        assert (started.project, started.display_name) == ("simdistill", "digits")
        config = {update.key: json.loads(update.value_json) for update in started.config.update}
        assert {name: config[name] for name in CONFIG} == CONFIG
        axes = [record.metric for kind, record in self.stored(folder) if kind == "metric"]
        assert [(axis.name or axis.glob_name, axis.step_metric) for axis in axes] == [
            ("iteration", ""),
            ("*", "iteration"),
        ]
        assert capsys.readouterr().out == ""

    def test_a_resumed_run_goes_on_as_the_same_one(self, run, monkeypatch):
        monkeypatch.setenv("WANDB_PROJECT", "of-my-own")
        for iteration in (100, 50):  # back, as after a crash
            (service,) = open_logs(["wandb"], run)
            service.log_metrics({"iteration": iteration, "loss": 0.5})
            service.close()
            if iteration == 100:
                time.sleep(1.1)  # W&B names folders by the second
        first, second = sorted((run.path / "wandb").glob("offline-run-*"))
        assert self.start(first).run_id == self.start(second).run_id == (run.path / "log-id.txt").read_text()
        assert [self.start(folder).resume for folder in (first, second)] == [True, True]
        assert [self.start(folder).project for folder in (first, second)] == ["of-my-own", "of-my-own"]
        assert self.rows(first) + self.rows(second) == [
            {"iteration": 100, "loss": 0.5},
            {"iteration": 50, "loss": 0.5},
        ]

    def test_leaves_a_run_of_the_calling_program_alone(self, run, tmp_path):
        import wandb

        own = wandb.init(project="own", dir=tmp_path)
        (service,) = open_logs(["wandb"], run)
        service.log_metrics(METRICS)
        service.close()
        own.log({"mine": 1})
        own.finish()
        (folder,) = (tmp_path / "wandb").glob("offline-run-*")
        assert self.rows(folder) == [{"mine": 1}]


class TestTrackio:
    @staticmethod
    def stored(home, table, run):
        """The rows of a table of trackio's database, JSON columns parsed, that belong to `run`."""
        with sqlite3.connect(home / "trackio" / "simdistill.db") as base:
            base.row_factory = sqlite3.Row
            rows = [dict(row) for row in base.execute(f"SELECT * FROM {table} ORDER BY id")]
        identity = (run.path / "log-id.txt").read_text()
        return [row for row in rows if row["run_name"] == f"{run.path.name}-{identity}"]

    def rows(self, home, run):
        return [(row["step"], json.loads(row["metrics"])) for row in self.stored(home, "metrics", run)]

    def test_holds_the_numbers_the_picture_and_the_configuration(self, run, png, offline, capsys):
        (service,) = open_logs(["trackio"], run)
        service.log_metrics(METRICS)
        service.log_metrics(MILESTONE)
        service.picture("samples", 100, png[1])
        service.close()
        metrics, milestone, (step, picture) = self.rows(offline, run)
        assert metrics == (50, FLAT_METRICS)
        assert milestone == (100, FLAT_MILESTONE)
        assert (step, list(picture)) == (100, ["samples"])
        file = offline / "trackio" / "media" / picture["samples"]["file_path"]
        np.testing.assert_array_equal(pixels_of(file.read_bytes()), png[0])
        (config,) = self.stored(offline, "configs", run)
        config = json.loads(config["config"])
        assert {name: config[name] for name in CONFIG} == CONFIG
        assert capsys.readouterr().out == ""

    def test_a_resumed_run_goes_on_as_the_same_one(self, run, offline):
        for iteration in (100, 50):
            (service,) = open_logs(["trackio"], run)
            service.log_metrics({"iteration": iteration, "loss": 0.5})
            service.close()
        assert self.rows(offline, run) == [(100, {"loss": 0.5}), (50, {"loss": 0.5})]
        assert len({row["run_id"] for row in self.stored(offline, "metrics", run)}) == 1

    def test_a_run_in_place_of_another_is_a_run_of_its_own(self, run, offline):
        for loss in (1.0, 2.0):
            run = RunFolder.create(run.path, CONFIG, overwrite=True)
            (service,) = open_logs(["trackio"], run)
            service.log_metrics({"iteration": 50, "loss": loss})
            service.close()
        assert self.rows(offline, run) == [(50, {"loss": 2.0})]

    def test_another_thread_may_record(self, run, offline):
        (service,) = open_logs(["trackio"], run)
        thread = threading.Thread(target=service.log_metrics, args=(METRICS,))
        thread.start()
        thread.join()
        service.close()
        assert self.rows(offline, run) == [(50, FLAT_METRICS)]
