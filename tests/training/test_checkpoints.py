"""What is no sound checkpoint is passed over by name, whatever it is, and never ends a training with a traceback."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from simdistill.config.recipes import RECIPES
from simdistill.runs.folder import RunFolder
from simdistill.teachers.loading import load_teacher
from simdistill.training.checkpoints import check_resumable, newest_checkpoint, read_checkpoint, write_checkpoint
from simdistill.workflows import distilling
from simdistill.workflows.distilling import Measurements

RECIPE = replace(RECIPES["digits"], batch=4, iterations=6, decay="none")
UNMEASURED = Measurements(milestones=1, seeds=0, samples=0)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The state of a finished run of eight iterations, made without forgeries."""
    path = tmp_path_factory.mktemp("straight") / "run"
    distilling.distill(load_teacher("digits"), replace(RECIPE, iterations=8), path, measured=UNMEASURED)
    return read_checkpoint(newest_checkpoint(path / "checkpoints"))[0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of six."""
    path = tmp_path_factory.mktemp("finished") / "run"
    distilling.distill(load_teacher("digits"), RECIPE, path, measured=UNMEASURED)
    return path


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it, to be damaged."""
    return RunFolder(Path(shutil.copytree(finished, tmp_path / "run")))


def sealed(path, tensors, facts):
    """A file with the digest that it should have."""
    save_file(tensors, path, None if facts is None else {"simdistill": facts})
    path.with_suffix(".sha256").write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")


def changed(state, name):
    """A state with one tensor in another form."""
    found = {key: tensor.clone() for key, tensor in state.items()}
    network = next(key for key in state if key.startswith("network_generator."))
    moment = next(key for key in state if key.startswith("optimizer_generator.") and not key.endswith(".step"))
    match name:
        case "NaN":
            found[network].view(-1)[0] = torch.nan
        case "shape":
            found[network] = found[network][:1].clone()
        case "moment":
            found[moment] = torch.zeros(3)
        case "parameter":
            found[moment.replace(".0.", ".999.")] = torch.zeros(3)
        case "position":
            found["position"] = torch.tensor(7)
        case "scale":
            found = {key: tensor for key, tensor in found.items() if not key.startswith("scale.")}
    return found


SECONDS = json.dumps({"seconds": 1.0})


@pytest.mark.parametrize(
    ("forgery", "facts", "said"),
    [
        ("other", SECONDS, "does not match this run's configuration"),
        ("NaN", SECONDS, "has numbers that are not finite"),
        ("shape", SECONDS, "does not match"),
        ("moment", SECONDS, "does not match"),
        ("parameter", SECONDS, "does not match"),
        ("position", SECONDS, "does not match"),
        ("scale", SECONDS, "does not match"),
        ("sound", None, "not a checkpoint of simdistill"),
        ("sound", "[", "not a checkpoint of simdistill"),
        ("sound", "3", "not a checkpoint of simdistill"),
        ("sound", "{}", "does not say its seconds"),
        ("digest", SECONDS, "its SHA-256 differs"),
        ("text", SECONDS, "not a valid safetensors file"),
        ("folder", SECONDS, None),
    ],
)
def test_a_forgery_is_passed_over(run, capsys, straight, forgery, facts, said):
    state, _ = read_checkpoint(newest_checkpoint(run.checkpoints))
    path = run.checkpoints / "000000007.safetensors"
    if forgery == "folder":
        (path / "precious").mkdir(parents=True)
        (run.checkpoints / "000000008.safetensors" / "precious").mkdir(parents=True)  # where one will be written
    else:
        sealed(path, {"other": torch.ones(2)} if forgery == "other" else changed(state, forgery), facts)
    if forgery == "text":
        path.write_bytes(b"\xff" * 100)
        path.with_suffix(".sha256").write_text(hashlib.sha256(path.read_bytes()).hexdigest())
    if forgery == "digest":
        path.with_suffix(".sha256").write_text("0" * 64)
    distilling.resume(run.path, measured=UNMEASURED, iterations=8)
    warned = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(warned) == (0 if said is None else 1)
    assert all(str(path) in line and said in line for line in warned)
    found = read_checkpoint(newest_checkpoint(run.checkpoints))[0]
    assert all(torch.equal(found[name], tensor) for name, tensor in straight.items())
    if forgery == "folder":
        assert (path / "precious").is_dir()
        assert (run.checkpoints / "not-000000008.safetensors" / "precious").is_dir()


def test_checkpoints_that_are_gone_are_missed(tmp_path, refused):
    run = RunFolder.create(tmp_path / "run", {"verb": "distill", "teacher": "digits"})
    check_resumable(run.checkpoints, run.iteration)  # one that was stopped before the first
    run.log_metrics({"iteration": 50, "seconds": 1.0})
    run.network.write_text("the only weights that are left")
    for verb in ("distill", "pretrain"):
        run.config.write_text(f'verb = "{verb}"\nteacher = "digits"\n' if verb == "distill" else f'verb = "{verb}"\n')
        line = refused(verb, "--resume", run.path)
        assert f"{run.checkpoints}: has no checkpoints, though the run had reached iteration 50" in line
    assert run.network.read_text() == "the only weights that are left"
    write_checkpoint(run.checkpoints, 50, {"position": torch.tensor([50, 0])}, {"seconds": 1.0})
    check_resumable(run.checkpoints, run.iteration)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00" * 9, b'[1]\n{}\n{"iteration": "x"}\n3\n', b"[" * 99999 + b"\n{}"])
def test_metrics_that_are_no_text_are_named_and_left_out(run, capsys, content):
    sound = run.read_metrics()
    run.metrics.write_bytes(content + b"\n" + run.metrics.read_bytes())
    assert run.read_metrics() == sound
    distilling.resume(run.path, measured=UNMEASURED)
    assert f"warning: {run.metrics}: its damaged lines are left out" in capsys.readouterr().err
    assert run.read_metrics() == sound
    distilling.resume(run.path, measured=UNMEASURED)
    assert "warning" not in capsys.readouterr().err
