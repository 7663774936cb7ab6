"""What else people name as a teacher: a run's folder, a student, a configuration."""

import json
from dataclasses import replace

import pytest
import torch

from simdistill.config.recipes import RECIPES
from simdistill.runs.folder import RunFolder
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.weights import read_network, write_network
from simdistill.workflows.distilling import Measurements, distill


@pytest.fixture
def student(tmp_path):
    """The run of a distillation."""
    recipe = replace(RECIPES["digits"], batch=2, iterations=1)
    distill(
        load_teacher("digits"), recipe, tmp_path / "student", measured=Measurements(milestones=1, seeds=0, samples=0)
    )
    return tmp_path / "student"


def test_the_run_of_a_pretraining_is_its_network(tmp_path):
    run = RunFolder.create(tmp_path / "a run", {"verb": "pretrain"})
    with pytest.raises(ValueError, match=r"generator\.safetensors: train it first, .* --resume '.*a run'"):
        load_teacher(str(run.path))
    write_network(run.network, load_teacher("digits").denoiser, data="digits")
    found = load_teacher(str(run.path))
    assert found.name == str(run.network.resolve())
    assert found.judged.data == "digits"
    x, sigma = torch.zeros(1, *found.shape), torch.ones(1)
    labels = torch.tensor([3])
    assert torch.equal(found.denoiser(x, sigma, labels), load_teacher("digits").denoiser(x, sigma, labels))


def test_a_student_is_no_teacher(student):
    """It was trained at the noise levels of its steps alone."""
    with pytest.raises(ValueError, match=r"is a student, .* give the one that it was distilled from, digits"):
        load_teacher(str(student))
    network = student / "generator.safetensors"
    with pytest.raises(ValueError, match="is a student"):
        load_teacher(str(network))
    denoiser, facts = read_network(network)
    former = {name: value for name, value in facts.items() if name != "levels"} | {"sigma_init": 2.5}
    write_network(network, denoiser, **former)  # as version 0.1 did
    with pytest.raises(ValueError, match="is a student"):
        load_teacher(str(network))


def test_another_programs_config_is_no_run(tmp_path):
    (tmp_path / "config.toml").write_text('verb = "conquer"')
    with pytest.raises(ValueError, match=r"no unet/config\.json"):
        load_teacher(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("model_index.json", "my pipeline"),
        ("unet/config.json", "my pipeline"),
        ("scheduler/scheduler_config.json", "my pipeline"),
        ("alone/config.json", "my pipeline/alone"),
    ],
)
def test_the_folder_of_a_configuration(tmp_path, name, folder):
    path = tmp_path / "my pipeline" / name
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({}))
    if not folder.endswith("alone"):
        (tmp_path / "my pipeline" / "model_index.json").write_text("{}")
    with pytest.raises(ValueError, match="is a configuration: name its folder") as refused:
        load_teacher(str(path))
    assert str(refused.value).endswith(f"--teacher '{tmp_path / folder}'")
