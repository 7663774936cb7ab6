"""The demo's page: what it draws, from what it is asked, and what it refuses."""

import base64
import io
import re
from copy import deepcopy
from dataclasses import replace
from html import escape

import numpy as np
import pytest
import torch
from PIL import Image

from simdistill.cli import main
from simdistill.config.recipes import RECIPES
from simdistill.config.settings import to_mapping
from simdistill.demo.pair import Pair, Wish
from simdistill.demo.serving import application
from simdistill.evaluation.sampling import draw
from simdistill.method.guidance import Guided
from simdistill.method.samplers import heun
from simdistill.reports.pictures import picture
from simdistill.runs.folder import RunFolder
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.pipeline_encoders import PipelineEncoder
from simdistill.teachers.weights import write_network
from simdistill.training.pretraining import Pretraining
from simdistill.workflows.sampling import sample

testclient = pytest.importorskip("starlette.testclient")


@pytest.fixture(scope="module")
def fashion():
    return Pair("fashion-mnist")


@pytest.fixture(scope="module")
def page(fashion):
    return testclient.TestClient(application(fashion))


def shown(html):
    """Pixels of the pictures on a page, in their order."""
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in pictures]


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def test_student_and_teacher_from_the_same_noise(page):
    answer = page.get("/", params={"label": 7, "seed": 5, "count": 2})
    assert answer.status_code == 200
    student, teacher = shown(answer.text)
    drawn = sample("fashion-mnist", [5, 6], [7])
    assert np.array_equal(student, pixels(picture(drawn, columns=2, edge=192)))
    known, sevens = load_teacher("fashion-mnist"), torch.tensor([7, 7])
    expected = draw(lambda z, rows: heun(known.denoiser, z, rows, 18, 0.002, 80.0), [5, 6], known.shape, sevens)
    assert np.array_equal(teacher, pixels(picture(expected, columns=2, edge=192)))
    assert re.findall(r"(\d+) network evaluation", answer.text) == ["1", "35"]
    assert len(re.findall(r"(?:Student|Teacher), [\d.]+ m?s", answer.text)) == 2


def test_the_students_picture_does_not_wait_for_the_teachers(fashion):
    drawings = fashion.draw(Wish(label=1, count=1))
    assert next(drawings).who == "student"
    assert next(drawings).who == "teacher"
    assert next(drawings, None) is None


def test_the_form_alone(page):
    answer = page.get("/")
    assert (answer.status_code, shown(answer.text)) == (200, [])
    assert re.findall(r'<option value="(\d)"', answer.text) == list("0123456789")
    assert re.findall(r"<option[^>]*>([^<]+)</option>", answer.text)[::9] == ["T-shirt or top", "Ankle boot"]
    assert "prompt" not in answer.text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"label": "10"}, "label = 10: must be in 0 … 9"),
        ({"label": "shoe"}, "label = &#39;shoe&#39;: must be a whole number"),
        ({"seed": "9" * 5000}, "must be a whole number of at most 10 digits"),
        ({"seed": "--5"}, "seed = &#39;--5&#39;: must be a whole number"),
        ({"seed": "-1"}, "seed = -1: must be in 0 … 2147483647"),
        ({"count": "17"}, "count = 17: must be in 1 … 16"),
        ({"count": "1e9"}, "count = &#39;1e9&#39;: must be a whole number"),
        ({"prompt": "x" * 1001}, "prompt = &#39;1001 characters&#39;: must be at most 1000"),
        ({"seed": "<script>"}, "seed = &#39;&lt;script&gt;&#39;: must be a whole number"),
    ],
)
def test_wishes_that_cannot_be(page, asked, message):
    answer = page.get("/", params=asked)
    assert answer.status_code == 400
    assert message in answer.text
    assert shown(answer.text) == []
    for name in asked.keys() & {"seed", "count"}:  # what was typed is still there
        assert f'value="{escape(asked[name])}"' in answer.text


def test_other_addresses_and_methods(page):
    assert page.get("/etc/passwd").status_code == 404
    assert page.post("/").status_code == 405


def test_prompts_go_through_the_teachers_own_encoder_and_guidance(pixart, tmp_path):
    teacher, run = load_teacher(str(pixart)), RunFolder(tmp_path / "run")
    recipe = replace(RECIPES["pixart-512"], teacher=str(pixart), teacher_levels="scheduler", teacher_guidance=3.0)
    RunFolder.create(run.path, {"verb": "distill", **to_mapping(recipe)})
    network = deepcopy(teacher.trainable)
    write_network(run.network, network, levels=[2.5], shape=teacher.shape, classes=0, text=True)
    pair = Pair(str(run.path))
    client = testclient.TestClient(application(pair))
    assert 'name="prompt"' in client.get("/").text
    assert "prompt = &#39;&#39;: must be given" in client.get("/", params={"prompt": "  "}).text

    answer = client.get("/", params={"prompt": 'red "hat"', "count": 3})
    student, guided = shown(answer.text)
    assert 'value="red &#34;hat&#34;"' in answer.text
    assert "70 network evaluations" in answer.text
    prompt = ['red "hat"']
    drawn = sample(run.path, range(3), teacher=teacher, prompts=prompt)
    assert np.array_equal(student, pixels(picture(drawn, columns=3, edge=192)))
    encoder = PipelineEncoder(pixart)
    denoiser, text = Guided(teacher.unguided, encoder.empty(), 3.0), encoder(prompt).expand(3)
    levels = 18, teacher.sigma_min, teacher.sigma_max
    drawn = draw(lambda z, _: heun(denoiser, z, text, *levels), range(3), teacher.shape)
    assert np.array_equal(guided, pixels(picture(teacher.decoded(drawn), columns=3, edge=192)))


def test_of_vectors_there_are_many_with_their_label_and_seeds(tmp_path):
    settings, run = Pretraining(width=8, depth=1), RunFolder(tmp_path / "run")
    write_network(tmp_path / "teacher.safetensors", settings.build((2,), 3, sigma_data=1.0))
    recipe = replace(RECIPES["digits"], teacher=str(tmp_path / "teacher.safetensors"))
    RunFolder.create(run.path, {"verb": "distill", **to_mapping(recipe)})
    network = replace(settings, seed=1).build((2,), 3, sigma_data=1.0)
    write_network(run.network, network, levels=[2.5], shape=(2,), classes=3)
    student, _ = Pair(str(run.path)).draw(Wish(label=2, seed=7, count=1))
    expected = sample(run.path, range(7, 2007), [2])
    assert np.array_equal(pixels(student.png), pixels(picture(expected)))
    assert not np.array_equal(pixels(student.png), pixels(picture(sample(run.path, range(2000), [2]))))


def test_what_there_is_not(tmp_path, capsys):
    assert main(["demo", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err
    assert main(["demo", "fashion-mnist", "--port", "70000"]) == 2
    assert "--port = 70000: must be in 1 … 65535" in capsys.readouterr().err
