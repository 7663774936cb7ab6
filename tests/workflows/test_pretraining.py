"""Teachers and classifiers trained on images that a user brings, through the command line."""

import io
import json
import shlex
import zipfile
from dataclasses import replace

import pytest
import torch
from PIL import Image

from simdistill.cli import main
from simdistill.data.images import open_images
from simdistill.evaluation.features import ImageClassifier, accuracy, read_classifier
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.weights import read_network, write_network
from simdistill.training.pretrainer import PretrainingTrainer
from simdistill.training.pretraining import PRETRAININGS, Pretraining
from simdistill.workflows import pretraining


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    """A zip of EDM's: 120 colour images of 8×8, of class 0 darker at the left and of class 1 darker at the top."""
    rng, path = torch.Generator().manual_seed(0), tmp_path_factory.mktemp("data") / "stripes.zip"
    ramp = torch.linspace(40, 215, 8).expand(3, 8, 8)
    with zipfile.ZipFile(path, "w") as archive:
        labels = []
        for k in range(120):
            image = ramp if k % 2 == 0 else ramp.transpose(1, 2)
            image = image + 10 * torch.randn(3, 1, 1, generator=rng) + 5 * torch.randn(3, 8, 8, generator=rng)
            buffer = io.BytesIO()
            Image.fromarray(image.clamp(0, 255).byte().permute(1, 2, 0).numpy()).save(buffer, "PNG")
            archive.writestr(f"00000/img{k:08d}.png", buffer.getvalue())
            labels.append([f"00000/img{k:08d}.png", k % 2])
        archive.writestr("dataset.json", json.dumps({"labels": labels}))
    return path


@pytest.fixture(scope="module")
def classifier(stripes):
    path = stripes.parent / "classifier.safetensors"
    command = ["features", str(stripes), "--out", str(path), "--features", "8", "--iterations", "60"]
    assert main(command) == 0
    return path


def test_a_classifier_of_ones_own_images(stripes, classifier):
    net, facts = read_classifier(classifier)
    images = open_images(stripes)
    assert net.arguments == {"shape": [3, 8, 8], "classes": 2, "features": 8}
    assert facts["accuracy"] == {"training": accuracy(net, images)}
    assert facts["accuracy"]["training"] > 0.95  # half by chance
    assert net.features(images.batch(range(5))).shape == (5, 8)
    by_hand = (net(images.batch(range(120))).argmax(1) == torch.arange(120) % 2).double().mean()
    assert facts["accuracy"]["training"] == pytest.approx(float(by_hand))


def test_the_classifier_halves_down_to_four_pixels():
    net = ImageClassifier((1, 32, 32), 10, 64)
    assert [conv.stride[0] for conv in (net.conv1, *net.halving)] == [1, 2, 2, 2]
    assert [conv.out_channels for conv in (net.conv1, *net.halving)] == [32, 64, 128, 128]
    assert net.hidden.in_features == 128 * 4 * 4
    shipped = {name: tuple(tensor.shape) for name, tensor in ImageClassifier((1, 8, 8), 10, 32).state_dict().items()}
    assert shipped["conv2.weight"] == (64, 32, 3, 3)
    assert shipped["hidden.weight"] == (32, 1024)


@pytest.mark.parametrize(
    ("flags", "centre", "classes"),
    [
        pytest.param(
            ["--network", "unet", "--width", "8", "--depth", "1", "--patch", "2", "--attention", "4"],
            "mean",
            2,
            marks=pytest.mark.slow,
            id="a U-Net on patches, by class",
        ),
        pytest.param(["--width", "16", "--depth", "1", "--no-conditional"], "none", 0, id="an MLP, unconditional"),
        pytest.param(["--width", "16", "--depth", "1"], "picture", 2, id="an MLP, around the mean picture"),
    ],
)
def test_a_teacher_of_ones_own_images(
    stripes, classifier, tmp_path, capsys, monkeypatch, coarse, flags, centre, classes
):
    short = ["--batch", "16", "--iterations", "8", "--ema-half-life", "50", "--out", str(tmp_path / "run"), "--json"]
    monkeypatch.setattr(
        pretraining, "evaluate", lambda samplers, *_, **__: {name: {"frechet": 1.0} for name in samplers}
    )
    command = ["pretrain", "digits", "--data", str(stripes), "--features", str(classifier), *flags, *short]
    assert main([*command, "--centre", centre]) == 0
    assert json.loads(capsys.readouterr().out) == {"frechet": 1.0}
    network = tmp_path / "run" / "generator.safetensors"
    assert read_network(network)[1]["settings"]["data"] == "stripes.zip"
    assert str(stripes.parent) not in network.read_bytes()[:10_000].decode(errors="replace")  # to be given away
    teacher = load_teacher(str(network))
    assert (teacher.shape, teacher.classes, teacher.judged.data) == ((3, 8, 8), classes, None)
    pictures = open_images(stripes).batch(range(120)).double()
    mean = {"none": 0.0, "mean": float(pictures.mean()), "picture": pictures.mean(0)}[centre]
    std = (pictures - pictures.mean(0)).square().mean().sqrt() if centre == "picture" else pictures.std()
    assert teacher.denoiser.scaling.sigma_data == pytest.approx(float(std), abs=1e-3)
    torch.testing.assert_close(
        torch.as_tensor(teacher.denoiser.mean).double(), torch.as_tensor(mean).double(), atol=1e-3, rtol=0
    )
    milestones = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {0, 8} <= {record["iteration"] for record in milestones if "quality" in record}


def test_training_goes_on_from_a_teachers_weights(tmp_path):
    data, settings = open_images("digits"), Pretraining("digits", width=8, depth=1, batch=16, iterations=20)
    first = PretrainingTrainer(data, settings)
    for _ in range(20):
        first.step()
    write_network(tmp_path / "first.safetensors", first.average)
    second = PretrainingTrainer(data, replace(settings, start=str(tmp_path / "first.safetensors"), seed=1))
    before = {name: tensor.clone() for name, tensor in second.denoiser.state_dict().items()}
    assert all(torch.equal(tensor, first.average.state_dict()[name]) for name, tensor in before.items())
    second.step()
    moved = {name for name, tensor in second.denoiser.named_parameters() if not torch.equal(tensor, before[name])}
    assert moved == {name for name, _ in first.denoiser.named_parameters()}
    with pytest.raises(ValueError, match=r"first.safetensors: shape of model\.\S+ = "):
        PretrainingTrainer(data, replace(settings, width=16, start=str(tmp_path / "first.safetensors")))


def test_what_cannot_be_trained(stripes, classifier, tmp_path, capsys):
    def error(*words):
        assert main([str(word) for word in words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    out = ("--out", tmp_path / "run")
    assert "--data = '': must be given for cifar10-cond" in error("pretrain", "cifar10-cond", *out)
    assert "must be digits, or an existing" in error("pretrain", "digits", "--data", tmp_path / "none.zip", *out)
    assert "--features = '': must be a classifier" in error("pretrain", "cifar10-cond", "--data", stripes, *out)
    assert "images of shape = [3, 8, 8]: must be [1, 8, 8]" in error("pretrain", "digits", "--data", stripes, *out)
    wrong = ("pretrain", "digits", "--features", classifier, *out)
    assert "images of shape = [1, 8, 8]: must be [3, 8, 8]" in error(*wrong)
    weights = ("pretrain", "digits", "--data", stripes, "--features", stripes, *out)
    told = error(*weights)
    assert "stripes.zip': are images, not a classifier of them" in told
    command = shlex.split(told.split("`")[1])
    assert command == ["simdistill", "features", str(stripes), "--out", "stripes-classifier.safetensors"]
    assert "then give --features stripes-classifier.safetensors" in told
    assert not (tmp_path / "run").exists()
    patch = ("pretrain", "digits", "--network", "unet", "--width", "8", "--patch", "3", *out)
    assert "patch = 3: must be a divisor of 8" in error(*patch)


def test_the_rates_of_the_two_schedules():
    data = open_images("digits")
    trainer = PretrainingTrainer(data, Pretraining("digits", width=8, depth=1, iterations=100, warmup=0.1))
    rates = []
    for trainer.iteration in (0, 4, 9, 50, 99):
        rates.append(trainer._rate())
    assert rates == pytest.approx([0.1, 0.5 * 0.99606, 0.98015, 0.5, 0.000247], abs=1e-5)
    settings = Pretraining("digits", width=8, depth=1, iterations=100, warmup=0.05, decay="none")
    trainer = PretrainingTrainer(data, settings)
    rates = []
    for trainer.iteration in (0, 4, 9, 99):
        rates.append(trainer._rate())
    assert rates == pytest.approx([0.2, 1.0, 1.0, 1.0])


def test_edms_settings_for_cifar_10():
    """Karras et al. 2022, Table 7: 200 million images in batches of 512, rate 1e-3 after the first 10 million."""
    for name in ("cifar10-uncond", "cifar10-cond"):
        edm = PRETRAININGS[name]
        assert edm.batch * edm.iterations == 200_000_000
        assert edm.warmup * edm.iterations * edm.batch == pytest.approx(10_000_000)
        assert (edm.lr, edm.decay, edm.dropout, edm.ema_half_life) == (1e-3, "none", 0.13, 500_000)
        assert edm.conditional == (name == "cifar10-cond")
    with torch.device("meta"):
        net = PRETRAININGS["cifar10-cond"].build((3, 32, 32), 10, 0.5)
    assert sum(p.numel() for p in net.parameters()) == 55_735_299  # as published
    assert PRETRAININGS["cifar10-cond"].augment == 0.12  # A_prob


def test_the_network_is_told_of_the_augmentation(monkeypatch):
    """One step's loss is the denoising loss of the moved images by the network that gets their labels."""
    settings = Pretraining("digits", network="unet", width=8, depth=1, batch=6, iterations=10, dropout=0, augment=0.9)
    trainer = PretrainingTrainer(open_images("digits"), settings)
    told = []
    net = trainer.denoiser.model
    forward = net.forward
    monkeypatch.setattr(net, "forward", lambda x, c, classes, how: told.append((x, how)) or forward(x, c, classes, how))
    before = net.map_augment.weight.detach().clone()
    trainer.step()
    ((x, how),) = told
    assert (x.shape, how.shape) == ((6, 1, 8, 8), (6, 9))
    assert len(how.unique()) > 20
    assert not torch.equal(net.map_augment.weight, before)
    with pytest.raises(ValueError, match=r"augment = 0\.1: must be 0 but for --network unet"):
        Pretraining("digits", augment=0.1)
