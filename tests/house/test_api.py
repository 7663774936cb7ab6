"""`import simdistill`: quick, typed, and a student in a few lines."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import simdistill
from simdistill.cli import main

STUB = (Path(simdistill.__file__).parent / "__init__.pyi").read_text()


def test_the_stub_types_exactly_what_the_package_gives():
    typed = {line.split(" as ")[1] for line in STUB.splitlines() if " as " in line} | {"__version__"}
    assert typed == set(simdistill.__all__) == set(dir(simdistill))
    for name in simdistill.__all__:
        assert getattr(simdistill, name)


def test_the_import_starts_nothing_but_itself():
    """Below 50 ms, for nothing of weight is loaded."""
    code = "import sys; before = {*sys.modules}; import simdistill; print(*{*sys.modules} - before)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = run.stdout.split()
    assert [name for name in loaded if name.startswith("simdistill")] == ["simdistill"]
    assert len(loaded) < 40
    assert not {"torch", "numpy", "importlib.metadata"} & set(loaded)


def test_what_there_is_not_is_said():
    with pytest.raises(AttributeError, match=r"load_student.*load_generator"):
        _ = simdistill.load_student


def test_a_shipped_student_draws_as_the_command_line_does(tmp_path):
    student = simdistill.load_generator("fashion-mnist", device="cpu")
    images = student.sample(seeds=range(6), labels=3)
    assert images.shape == (6, 1, 32, 32)
    torch.testing.assert_close(images[[1, 4]], student.sample(seeds=[1, 4], labels=[3]), rtol=0, atol=1e-5)
    assert torch.equal(images, simdistill.sample("fashion-mnist", range(6), 3))
    assert main(["sample", "fashion-mnist", "--seeds", "0-5", "--labels", "3", "--out", str(tmp_path / "x.npy")]) == 0
    assert np.array_equal(np.load(tmp_path / "x.npy"), images.numpy())
    assert student.nfe == 1


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"labels": 12}, r"labels = 12: must be in 0 … 9"),
        ({"labels": [3, -1]}, r"labels = -1: must be in 0 … 9"),
        ({"labels": []}, r"labels = \[\]"),
        ({"prompts": ["a boot"]}, r"prompt = \['a boot'\]: must be left out"),
        ({"seeds": []}, r"seeds = \[\]"),
        ({"seeds": [-1]}, r"seeds = \[-1\]: must be from 0 to"),
    ],
)
def test_bad_requests_are_answered_as_on_the_command_line(asked, said):
    student = simdistill.load_generator("fashion-mnist", device="cpu")
    with pytest.raises(ValueError, match=said):
        student.sample(**{"seeds": range(3), **asked})


def test_a_teacher_is_distilled_loaded_and_evaluated(tmp_path):
    class Affine(torch.nn.Linear):
        def forward(self, x_t, sigma, condition=None):
            return super().forward(torch.cat([x_t, sigma[:, None]], dim=1))

    teacher = simdistill.Teacher(Affine(3, 2), shape=(2,))
    recipe = simdistill.Recipe(iterations=3, batch=8, generator_lr=1e-4, online_lr=1e-4)
    student = simdistill.distill(teacher, recipe, tmp_path / "mine", device="cpu", evaluation_samples=10)
    again = simdistill.load_generator(tmp_path / "mine", teacher, device="cpu")
    assert torch.equal(student.sample(range(5)), again.sample(range(5)))
    figures = simdistill.evaluate(tmp_path / "mine", 20, 1, teacher, device="cpu")
    assert figures["student"]["nfe"] == 1
    assert figures["teacher"]["nfe"] == 35
    assert simdistill.load_recipe(tmp_path / "mine").iterations == 3


def test_recipes_by_name_file_and_run(tmp_path):
    assert simdistill.load_recipe("digits").teacher == "digits"
    (tmp_path / "own.toml").write_text("batch = 12\nobjective = 'DiffInstruct'\n")
    assert simdistill.load_recipe(tmp_path / "own.toml").batch == 12
    with pytest.raises(ValueError, match=r"recipe = .digit.*digits"):
        simdistill.load_recipe("digit")
    with pytest.raises(ValueError, match="teacher = 'nobody'"):
        simdistill.load_teacher("nobody")
