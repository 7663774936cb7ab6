"""A run is only resumed with the teacher that it began with."""

import copy
from dataclasses import replace

import pytest
import torch

from simdistill.config.recipes import RECIPES
from simdistill.data.densities import DENSITIES
from simdistill.runs.fingerprint import check_teacher, fingerprint
from simdistill.runs.folder import RunFolder
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.weights import write_network
from simdistill.workflows import distilling
from simdistill.workflows.distilling import Measurements
from simdistill.workflows.evaluating import evaluate_run

UNMEASURED = Measurements(milestones=1, seeds=0, samples=0)


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))


def changes():
    """A network that differs in one thing each."""
    for name in network().state_dict():
        other = network()
        other.state_dict()[name].view(-1)[-1:].add_(1)
        yield name, other
    yield "names", torch.nn.Sequential(torch.nn.ModuleDict({"a": network()}))
    yield "types", network().double()
    swapped = network()
    with torch.no_grad():
        swapped[0].weight.copy_(swapped[0].weight.flip(0))
    yield "order", swapped


def test_it_is_that_of_weights_and_buffers():
    own = fingerprint(network())
    assert len(own) == 16
    assert own == fingerprint(network().eval().requires_grad_(False))
    others = {name: fingerprint(other) for name, other in changes()}
    assert len({own, *others.values()}) == len(others) + 1 == 11
    assert fingerprint(lambda x_t, sigma, condition=None: x_t) is None
    exact = {name: fingerprint(density()) for name, density in DENSITIES.items()}
    assert None not in exact.values()
    assert len(set(exact.values())) == len(exact)
    assert fingerprint(network().bfloat16()) != own


def test_another_teacher_is_refused_by_name(tmp_path):
    run = RunFolder.create(tmp_path / "run", {"verb": "distill"})
    first, second = network(), network().double()
    check_teacher(run, "first", first)
    check_teacher(run, "moved/first", first)  # the name may change
    with pytest.raises(ValueError, match=rf"--teacher = second: has other weights \(fingerprint {fingerprint(second)}"):
        check_teacher(run, "second", second)
    with pytest.raises(ValueError, match=rf"began with, first \(fingerprint {fingerprint(first)}\); give that one"):
        check_teacher(run, "function", lambda x_t, sigma, condition=None: x_t)
    run.teacher.write_text("[")
    with pytest.raises(ValueError, match=r"teacher\.json: damaged; delete it"):
        check_teacher(run, "first", first)
    run.teacher.unlink()  # as in a run of an older version
    check_teacher(run, "second", second)
    with pytest.raises(ValueError, match="began with, second"):
        check_teacher(run, "first", first)


def test_weights_that_were_replaced_between_stop_and_resume(tmp_path):
    teacher, path = load_teacher("digits"), tmp_path / "teacher.safetensors"
    write_network(path, teacher.denoiser)
    recipe = replace(RECIPES["digits"], batch=4, iterations=4)
    distilling.distill(load_teacher(str(path)), recipe, tmp_path / "run", measured=UNMEASURED)
    distilling.resume(tmp_path / "run", measured=UNMEASURED)
    distilling.resume(tmp_path / "run", teacher, measured=UNMEASURED)  # the same one, from elsewhere
    with torch.no_grad():
        next(teacher.denoiser.parameters()).add_(1e-3)
    write_network(path, teacher.denoiser)
    before = (tmp_path / "run" / "generator.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"teacher\.safetensors: has other weights"):
        distilling.resume(tmp_path / "run", measured=UNMEASURED, iterations=8)
    assert (tmp_path / "run" / "generator.safetensors").read_bytes() == before
    (tmp_path / "run" / "teacher.json").unlink()
    distilling.resume(tmp_path / "run", measured=UNMEASURED)


def test_evaluating_with_another_teacher_is_told_and_not_kept(tmp_path, capsys):
    """Neither its figures nor samples of its own replace those of the run's teacher."""
    teacher, run = load_teacher("digits"), RunFolder(tmp_path / "run")
    teacher = replace(teacher, judged=replace(teacher.judged, data=None))  # so that its samples are the reference
    distilling.distill(teacher, replace(RECIPES["digits"], batch=4, iterations=1), run.path, measured=UNMEASURED)
    capsys.readouterr()
    evaluate_run(run.path, teacher, 20, 1, features="pixels")
    assert "warning" not in capsys.readouterr().err
    kept = {path: path.read_bytes() for path in (run.reference, run.evaluation, run.report)}
    other = copy.deepcopy(teacher)
    with torch.no_grad():
        next(other.denoiser.parameters()).add_(1e-3)
    found = evaluate_run(run.path, replace(other, name="other"), 40, 1, features="pixels")
    said = capsys.readouterr().err
    assert "warning: --teacher = other: has other weights" in said
    assert "the figures are only printed" in said
    assert found["reference"] == "40 samples of the teacher"
    assert {path: path.read_bytes() for path in kept} == kept
