"""Figures of drawn faces: what they are of, who draws, and what is shown."""

import numpy as np
import pytest
import torch
from faces_in_rows import SIZES, in_rows
from PIL import Image

from examples.faces import autoencoder
from examples.faces.__main__ import main
from examples.faces.attributes import VALUES
from examples.faces.autoencoder import restoring_error
from examples.faces.judge import FEATURES, faces, judged, numbers, read_judge, spread
from examples.faces.making import read_lines
from examples.faces.measuring import HeldOut, players, restored
from examples.faces.sheet import TIMES, beside
from simdistill.data.embeddings import EMPTY, Encoding, begin, part_of, write_part
from simdistill.evaluation.features import ImageClassifier, write_classifier
from simdistill.method.samplers import noise_from_seeds
from simdistill.method.text import Text, TextInput
from simdistill.reports.pictures import GAP, LINE, WIDTH
from simdistill.teachers.autoencoders import Autoencoder
from simdistill.teachers.weights import read_network, write_network
from simdistill.training.pretraining import Pretraining

COUNT, SIGMA_DATA = 40, 0.4
TEXT = TextInput(3, 8)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return in_rows(tmp_path_factory.mktemp("faces"), 1, 2 * COUNT)


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """A judge that was never taught."""
    path = tmp_path_factory.mktemp("judge") / "judge.safetensors"
    torch.manual_seed(0)
    known = {name: list(values) for name, values in VALUES.items()}
    write_classifier(path, ImageClassifier((3, 16, 16), sum(SIZES), FEATURES).eval(), attributes=known)
    return path


@pytest.fixture(scope="module")
def prompts(data, tmp_path_factory):
    """The captions, encoded at random."""
    folder, rng = tmp_path_factory.mktemp("prompts"), torch.Generator().manual_seed(0)
    captions = [line["text"] for line in read_lines(data / "held-out.zip")]
    encoding = Encoding("gone", "0", TEXT, True, len(captions), "0", len(captions))
    begin(folder, encoding, captions)
    for path, n in ((part_of(folder, 0), len(captions)), (folder / EMPTY, 1)):
        states = torch.randn(n, TEXT.tokens, TEXT.width, generator=rng)
        write_part(path, Text(states, torch.ones(n, TEXT.tokens, dtype=torch.bool)), [TEXT.tokens] * n, encoding)
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """PixArt's transformer before its training: the best linear denoiser, whatever the caption."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    settings = Pretraining(network="pixart", width=32, depth=1, patch=4)
    write_network(path, settings.build((3, 16, 16), 0, SIGMA_DATA, text=TEXT), encoder="gone")
    return path


def test_figures_are_those_of_their_definitions(data, judge):
    held_out = HeldOut(data, judge, COUNT)
    rng = torch.Generator().manual_seed(0)
    drawn = (held_out.pictures + 0.3 * torch.randn(held_out.pictures.shape, generator=rng)).clamp(-1, 1)
    found, net = held_out.measure(drawn, 7), read_judge(judge)
    x, y = (
        net.features(pictures).double().numpy() for pictures in (drawn, HeldOut(data, judge, COUNT)._pictures[COUNT:])
    )
    overlap = np.sqrt(np.linalg.eigvals(np.cov(x.T) @ np.cov(y.T)).real.clip(0)).sum()
    distance = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(np.cov(x.T) + np.cov(y.T)) - 2 * overlap
    assert found.frechet == pytest.approx(distance, rel=1e-3)
    specified = [line["specified"] for line in read_lines(data / "held-out.zip")][:COUNT]
    hits = [
        [seen == want for seen, want in zip(row, wanted, strict=True) if want >= 0]
        for row, wanted in zip(judged(net, drawn).tolist(), numbers(specified).tolist(), strict=True)
    ]
    assert found.single == pytest.approx(np.mean([hit for row in hits for hit in row]))
    assert found.told == pytest.approx(np.mean([all(row) for row in hits]))
    assert found.nine == pytest.approx(np.mean([all(row) for row in hits if len(row) == 9]))
    assert found.spread == spread(net, drawn, specified)
    assert found.nfe == 7
    assert 0 < found.single < 1


def test_everybody_draws_from_the_same_noise(teacher, prompts, data, judge):
    captions = HeldOut(data, judge, COUNT).captions[:6]
    drawn = {name: (n, draws(captions)) for name, n, draws in players(str(teacher), [1.0, 2.0], [], prompts)}
    assert [(name, n) for name, (n, _) in drawn.items()] == [
        ("teacher", 35),
        ("teacher, guidance 2", 70),
        ("undistilled", 1),
    ]
    z = noise_from_seeds(range(6), (3, 16, 16))
    skip = SIGMA_DATA**2 / (SIGMA_DATA**2 + 2.5**2)
    assert torch.allclose(drawn["undistilled"][1], skip * 2.5 * z, atol=1e-6)
    flow = SIGMA_DATA * 80 / (SIGMA_DATA**2 + 80**2) ** 0.5 * z  # of a Gaussian; Heun's 35 evaluations miss it a little
    assert torch.allclose(drawn["teacher"][1], flow.clamp(-1, 1), rtol=0.08)
    assert torch.allclose(drawn["teacher, guidance 2"][1], drawn["teacher"][1], atol=1e-5)


def test_only_the_noise_levels_that_are_named_are_guided(teacher, prompts, data, judge, tmp_path):
    torch.manual_seed(0)
    network, facts = read_network(teacher)
    torch.nn.init.normal_(network.model.transformer.proj_out.weight, std=0.1)
    write_network(tmp_path / "told.safetensors", network, **facts)
    captions = HeldOut(data, judge, COUNT).captions[:3]

    def drawn(scale, interval):
        player, _ = players(str(tmp_path / "told.safetensors"), [scale], [], prompts, interval)
        return player[2](captions)

    plain = drawn(1.0, (0.0, 100.0))
    torch.testing.assert_close(drawn(3.0, (100.0, 200.0)), plain, rtol=0, atol=1e-6)
    assert (drawn(3.0, (0.5, 100.0)) - plain).abs().max() > 1e-3


def test_faces_stand_beside_each_other_in_their_colours(tmp_path):
    reds = torch.tensor([1.0, -1.0, -1.0]).reshape(1, 3, 1, 1).expand(2, 3, 16, 16)
    beside(tmp_path / "faces.png", ["a red one", "another"], {"real": reds, "student": -reds})
    pixels = np.asarray(Image.open(tmp_path / "faces.png"))
    left, edge = WIDTH + 2 * GAP, TIMES * 16
    row = LINE + GAP + edge // 2
    assert pixels[row, left + 5].tolist() == [255, 0, 0]
    assert pixels[row, left + edge + GAP + 5].tolist() == [0, 255, 255]
    assert pixels[row, left - 5].tolist() == [255, 255, 255]


def test_the_command_fills_a_page(teacher, prompts, data, judge, tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    page.write_text("# Faces\n\n<!-- mine -->\n<!-- end -->\n")
    words = ["measure", data, "--judge", judge, "--prompts", prompts, "--teacher", teacher, "--count", COUNT]
    words += ["--guidance", 1, 3, "--guidance-interval", 0.3, 5]
    words += ["--page", page, "--table", "mine", "--picture", tmp_path / "faces.png", "--shown", 3]
    monkeypatch.setattr("sys.argv", ["python -m examples.faces", *map(str, words)])
    main()
    rows = [line.split("|")[1:3] for line in page.read_text().splitlines() if line.startswith("|")]
    assert [[cell.strip() for cell in row] for row in rows[2:]] == [
        ["real", "–"],
        ["teacher", "35"],
        ["teacher, guidance 3", "70"],
        ["undistilled", "1"],
    ]
    assert "undistilled" in capsys.readouterr().out
    assert Image.open(tmp_path / "faces.png").height > 3 * TIMES * 16


def test_more_faces_than_there_are_is_refused(data, judge):
    with pytest.raises(ValueError, match="count = 41: must be from 2 to 40"):
        HeldOut(data, judge, COUNT + 1)


# --- The autoencoder --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_autoencoder_is_trained_for_teachers_of_latents(data, tmp_path):
    autoencoder.train(data, tmp_path / "short", iterations=1, seed=0)
    autoencoder.train(data, tmp_path / "long", iterations=25, seed=0)
    assert restoring_error(tmp_path / "long", data) < 0.8 * restoring_error(tmp_path / "short", data)
    pictures, _ = faces(data / "train.zip")
    latents = Autoencoder(tmp_path / "long").latents(pictures)
    assert latents.shape == (len(pictures), 4, 8, 8)
    assert float(latents.std()) == pytest.approx(1, abs=1e-3)
    assert Autoencoder(tmp_path / "long").size((4, 8, 8)) == (16, 16)
    network = Pretraining(network="pixart", width=32, depth=1, patch=2).build((4, 8, 8), 0, 1.0, text=TEXT)
    write_network(tmp_path / "teacher.safetensors", network, autoencoder=str(tmp_path / "long"))
    held_out, _ = faces(data / "held-out.zip")
    through = restored(str(tmp_path / "teacher.safetensors"), held_out)
    error = float((through - held_out).square().mean().sqrt())
    assert 0 < error <= restoring_error(tmp_path / "long", data)  # what leaves [-1, 1] is cut off


def test_only_a_teacher_of_latents_has_an_autoencoder(teacher, data):
    assert restored(str(teacher), faces(data / "held-out.zip")[0]) is None


def test_an_autoencoder_overwrites_nothing(data, tmp_path):
    (tmp_path / "mine").write_text("work")
    with pytest.raises(ValueError, match="a new or an empty folder"):
        autoencoder.train(data, tmp_path, iterations=1, seed=0)
