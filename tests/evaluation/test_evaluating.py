"""`stats` and `evaluate` as the literature computes its figures: from the command line, and in several processes."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_files import in_folder, png
from PIL import Image
from statistics_by_two import compute
from test_inception import save_script
from torchmetrics.image.fid import FrechetInceptionDistance

from simdistill.cli import main
from simdistill.config.recipes import RECIPES
from simdistill.config.settings import read_toml, to_mapping
from simdistill.data.images import open_images
from simdistill.evaluation import inception
from simdistill.evaluation.stored import read_statistics
from simdistill.runs.folder import RunFolder
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.weights import write_network
from simdistill.workflows import distilling, evaluating, sampling, statistics
from simdistill.workflows.measuring import Measurements

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")
HERE = Path(__file__).parents[1] / "helpers"
DIMENSIONS = 16


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """TorchScript with the interface of NVIDIA's, but few features: large matrices take long."""
    monkeypatch.setattr(inception, "FEATURES", DIMENSIONS)
    torch.manual_seed(0)
    return save_script(tmp_path / "inception.pt", dimensions=DIMENSIONS)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run whose student is the undistilled teacher."""
    path, teacher = tmp_path_factory.mktemp("runs") / "digits", load_teacher("digits")
    run = RunFolder.create(path, {"verb": "distill", **to_mapping(RECIPES["digits"])})
    write_network(run.network, teacher.denoiser, levels=[2.5], shape=teacher.shape, classes=10)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A zip of EDM's format: 60 digits as 8-bit PNGs of three channels, with labels."""
    return zip_of_digits(tmp_path_factory.mktemp("data") / "digits-8x8.zip", "RGB")


def zip_of_digits(path, mode, **how):
    pixels = ((open_images("digits").batch(range(60))[:, 0] * 127.5 + 128).clip(0, 255)).byte().numpy()
    names = [f"00000/img{i:08d}.png" for i in range(60)]
    with zipfile.ZipFile(path, "w") as archive:
        for name, one in zip(names, pixels, strict=True):
            buffer = BytesIO()
            Image.fromarray(one).convert(mode).save(buffer, "PNG", **how)
            archive.writestr(name, buffer.getvalue())
        archive.writestr("dataset.json", json.dumps({"labels": [[name, i % 10] for i, name in enumerate(names)]}))
    return path


def printed(capsys, *words):
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def error(capsys, *words):
    assert main([str(word) for word in words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    return line


class Network(torch.nn.Module):
    """The stand-in as torchmetrics takes an extractor."""

    num_features = DIMENSIONS

    def __init__(self, path):
        super().__init__()
        self.network = torch.jit.load(path)

    def forward(self, images):
        bytes_ = (images * 127.5 + 128).clip(0, 255).byte()
        return self.network(bytes_.expand(-1, 3, -1, -1), return_features=True).double()


def test_fid_from_images_and_weights_to_the_report(tmp_path, run, images, weights, capsys):
    """The whole way: `stats` of a zip, `evaluate` with the same weights, beside torchmetrics on the same images."""
    words = ["stats", images, "--out", tmp_path / "ref.npz", "--inception", weights]
    stored = json.loads(printed(capsys, *words, "--json"))
    assert (stored["images"], stored["dimensions"], stored["computed"]) == (60, DIMENSIONS, True)
    again = printed(capsys, *words)
    assert "60 images" in again
    assert stored["features"] in again
    assert "already" in again

    words = ["evaluate", run, "--samples", "50", "--seeds", "3", "--reference", tmp_path / "ref.npz"]
    words += ["--inception", weights]
    figures = json.loads(printed(capsys, *words, "--json"))
    fid = FrechetInceptionDistance(Network(weights), reset_real_features=False)
    fid.update(open_images(images).batch(range(60)), real=True)
    expected = []
    for seed in range(3):
        fid.update(sampling.sample(run, range(50 * seed, 50 * seed + 50)), real=False)
        expected.append(float(fid.compute()))
        fid.reset()
    found = figures["student"]["frechet"]
    assert found["values"] == pytest.approx(expected, rel=1e-4)
    assert found["minimum"] == min(found["values"]) < found["mean"]
    assert found["std"] == pytest.approx(np.std(expected, ddof=1), rel=1e-3)
    assert 1 < figures["student"]["inception_score"]["mean"] < 7
    assert 0 <= figures["teacher"]["recall"]["mean"] <= 1
    assert figures["features"] == stored["features"]
    assert figures["reference"] == f"60 images of digits-8x8.zip in the features {stored['features']}"
    assert json.loads((run / "evaluation.json").read_text())["student"] == figures["student"]

    table = printed(capsys, *words)
    headings = table.split("\n")[0].split()
    assert headings == ["FID", "min", "of", "3", "IS", "precision", "recall", "NFE", "samples/s"]
    assert f"{found['mean']:.3f} ± {found['std']:.3f}" in table
    assert f"{found['minimum']:.3f}" in table
    page = (run / "report.html").read_text()
    assert f"in FID ({found['mean']:.2f}"[:11] in page
    assert "FID, minimum" in page
    assert "Fréchet distance" not in page


def test_edms_statistics_give_the_distance_alone(tmp_path, run, weights, capsys):
    np.savez(tmp_path / "edm.npz", mu=np.zeros(DIMENSIONS), sigma=np.eye(DIMENSIONS))
    words = ["evaluate", run, "--samples", "20", "--seeds", "2", "--reference", tmp_path / "edm.npz"]
    assert re.search(r"edm\.npz: .*extractor that it does not name.*--inception", error(capsys, *words))
    assert "dimensions of pixels = 64: must be 16" in error(capsys, *words, "--features", "pixels")
    shown = printed(capsys, *words, "--inception", weights)
    assert shown.split("\n")[0].split() == ["FID", "min", "of", "2", "IS", "NFE", "samples/s"]
    assert "precision" not in shown.splitlines()[0]
    assert "moments" in shown
    assert "nowhere.npz: no such file" in error(capsys, *words[:-1], "nowhere.npz", "--inception", weights)
    assert "left out with --inception" in error(capsys, *words, "--inception", weights, "--features", "pixels")


def test_statistics_are_computed_again_only_for_other_inputs(tmp_path, images, weights, monkeypatch, capsys):
    computed, compute = [], statistics.statistics_of
    monkeypatch.setattr(statistics, "statistics_of", lambda *given: computed.append(0) or compute(*given))
    data, out = tmp_path / "data.zip", tmp_path / "ref.npz"
    data.write_bytes(images.read_bytes())
    for features, anew in (("pixels", True), ("pixels", False), (str(weights), True), ("pixels", True)):
        assert (statistics.store_statistics(str(data), out, features)[1] is not None) is anew
    os.utime(data, ns=(0, 0))
    assert statistics.store_statistics(str(data), out, "pixels")[1] is not None
    monkeypatch.setattr(statistics, "KEPT", 5)
    assert statistics.store_statistics(str(data), out, "pixels")[1] is not None
    assert len(computed) == 5
    np.savez(out, mu=np.zeros(3), sigma=np.eye(3))  # somebody else's
    before = out.read_bytes()
    line = error(capsys, "stats", data, "--out", out, "--features", "pixels")
    assert "not made by `simdistill stats`, so it is not overwritten" in line
    assert out.read_bytes() == before


def test_figures_in_other_features_are_kept_beside_and_said(run, tmp_path, capsys):
    run, teacher = shutil.copytree(run, tmp_path / "run"), load_teacher("digits")
    (run / "evaluation.json").unlink(missing_ok=True)
    first = evaluating.evaluate_run(run, teacher, 20, 2)
    capsys.readouterr()
    other = evaluating.evaluate_run(run, teacher, 30, 2, features="pixels")
    beside = Path(run) / f"evaluation-{first['features']}.json"
    assert f"the report now has the figures in the features pixels; those in {first['features']}: {beside}" in (
        capsys.readouterr().err
    )
    assert json.loads((Path(run) / "evaluation.json").read_text())["features"] == other["features"] == "pixels"
    assert json.loads(beside.read_text())["features"] == first["features"]
    evaluating.evaluate_run(run, teacher, 10, 2, features="digits")
    assert "rest on more samples, and stay as they are" in capsys.readouterr().err
    assert json.loads((Path(run) / "evaluation.json").read_text())["features"] == "pixels"


def test_held_out_images_are_measured_as_samples_are(tmp_path, run, capsys):
    assert "1,348 images of" in printed(capsys, "stats", "digits", "--out", tmp_path / "d.npz", "--features", "digits")
    stored = read_statistics(tmp_path / "d.npz")
    assert (stored.statistics.images, stored.held_out.images) == (1348, 449)
    figures = evaluating.evaluate_run(run, load_teacher("digits"), 100, 1, reference=str(tmp_path / "d.npz"))
    usual = evaluating.evaluate_run(run, load_teacher("digits"), 100, 1)
    real, student = figures["real"], figures["student"]
    assert real.pop("samples") == usual["real"].pop("samples") == 449
    for name, figure in real.items():
        assert figure["values"] == [figure["mean"]] == pytest.approx([usual["real"][name]["mean"]], rel=1e-6)
        assert (figure["std"], figure["seeds"]) == (0.0, 1)
    assert student["frechet"]["mean"] == pytest.approx(usual["student"]["frechet"]["mean"], rel=1e-6)
    assert student["recall"]["mean"] == pytest.approx(usual["student"]["recall"]["mean"], abs=1e-6)


def test_bad_requests(tmp_path, images, run, capsys):
    assert "DATA is missing" in error(capsys, "stats")
    assert "--inception = None: must be given, or --features" in error(capsys, "stats", images, "--out", "x.npz")
    assert "--out = 'None': must be a" in error(capsys, "stats", images, "--features", "pixels")
    assert "--out = 'x.npy': must be a" in error(capsys, "stats", images, "--features", "pixels", "--out", "x.npy")
    assert "nodata" in error(capsys, "stats", tmp_path / "nodata", "--features", "pixels", "--out", tmp_path / "x.npz")
    assert "images of shape = [3, 8, 8]: must be [1, 8, 8]" in error(
        capsys, "stats", images, "--features", "digits", "--out", tmp_path / "x.npz"
    )
    assert "batch = 0: must be at least 1" in error(capsys, "evaluate", run, "--batch", "0")
    assert list(tmp_path.iterdir()) == []


def test_milestones_and_resumption_know_the_recipes_reference(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluating, "write_report", lambda run: None)
    monkeypatch.chdir(tmp_path)
    Path("pixels").write_text("a file that happens to have this name")
    statistics.store_statistics("digits", "ref.npz", "pixels")
    recipe = replace(RECIPES["digits"], batch=8, iterations=2, reference="ref.npz", features="pixels")
    calls = []
    evaluate_run, few = evaluating.evaluate_run, Measurements(seeds=3, samples=50, milestone_samples=50)
    noted = lambda *a, **k: calls.append(evaluate_run(*a, **k))  # noqa: E731
    monkeypatch.setattr(distilling, "evaluate_run", noted)
    teacher = load_teacher("digits")
    with pytest.raises(ValueError, match=r"ref.npz: shape|features = 'digits-"):
        distilling.distill(teacher, replace(recipe, features="digits"), "refused")
    with pytest.raises(ValueError, match=r"nowhere.npz: no such file"):
        distilling.distill(teacher, replace(recipe, reference="nowhere.npz"), "refused")
    assert not Path("refused").exists()
    distilling.distill(teacher, recipe, "run", measured=few)
    run = RunFolder.open(Path("run"))
    assert read_toml(run.config)["reference"] == str(tmp_path / "ref.npz")  # from wherever it is resumed
    assert read_toml(run.config)["features"] == "pixels"
    qualities = [record["quality"] for record in run.read_metrics() if "quality" in record]
    assert {quality["features"] for quality in qualities} == {"pixels"}
    assert calls[0]["reference"] == "1,348 images of the digits' 1,348 training images in the features pixels"
    # the last milestone has the first of the evaluation's noises
    assert qualities[-1]["frechet"]["values"] == pytest.approx(calls[0]["student"]["frechet"]["values"][:3], rel=1e-3)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    distilling.resume(tmp_path / "run", measured=few)
    assert calls[1]["student"]["frechet"]["values"] == pytest.approx(calls[0]["student"]["frechet"]["values"])


@pytest.mark.slow
def test_two_processes_compute_what_one_does(tmp_path, run):
    """Statistics and figures of two Gloo processes, and of one with another batch, agree; each has all of them."""
    exif = Image.Exif()
    exif[0x0112] = 3
    images = zip_of_digits(tmp_path / "grey.zip", "L", exif=exif)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    compute(str(images), run, tmp_path / "one", batch=3)  # of 43 samples; two processes draw 21 and 22
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [*torchrun, HERE / "statistics_by_two.py", images, run, tmp_path / "two"]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "PYTHONPATH": str(HERE.parents[1]),
    }
    subprocess.run([str(word) for word in words], env=environment, check=True, timeout=250)
    one, two = (read_statistics(tmp_path / name / "ref.npz") for name in ("one", "two"))
    assert one.statistics.images == two.statistics.images == 60
    torch.testing.assert_close(two.statistics.moments.covariance, one.statistics.moments.covariance, rtol=0, atol=1e-9)
    assert torch.equal(two.statistics.features, one.statistics.features)
    assert two.inputs == one.inputs
    notes = [json.loads((tmp_path / name).read_text()) for name in ("one/notes-0.json", "two/notes-0.json")]
    assert notes == [{"images turned upright by EXIF": 60}] * 2
    figures = [json.loads((tmp_path / name).read_text()) for name in ("one/figures-0.json", "two/figures-0.json")]
    both = [json.loads((tmp_path / "two" / f"figures-{rank}.json").read_text()) for rank in range(2)]
    assert both[0] == both[1]
    for name in ("teacher", "student", "undistilled"):
        a, b = ({k: v for k, v in f[name].items() if k != "images_per_second"} for f in figures)
        for distance in ("frechet", "kernel", "energy", "sliced_wasserstein"):
            assert b.pop(distance)["values"] == pytest.approx(a.pop(distance)["values"], rel=1e-6), (name, distance)
        assert b == a  # shares of samples, and counts


def test_what_is_wrong_with_the_data_is_said_first(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for features in ([], ["--inception", "nowhere.pt"], ["--features", "pixels"]):
        line = error(capsys, "stats", tmp_path / "empty", "--out", tmp_path / "x.npz", *features)
        assert "empty: images = 0: must be at least one of .png, .jpg" in line


def test_a_classifier_for_another_size_names_what_takes_any(tmp_path, capsys):
    folder = tmp_path / "mnist"
    for k in range(3):
        in_folder(folder, {f"{k}.png": png(k, (28, 28), "L")})
    words = ["stats", folder, "--out", tmp_path / "x.npz", "--features"]
    line = error(capsys, *words, "fashion-mnist")
    assert "images of shape = [1, 28, 28]: must be [1, 32, 32], as the classifier fashion-mnist-classifier" in line
    assert "--features pixels or imagenet takes any size, and stats, features and pretrain have --pad 32" in line
    assert "3 images of mnist" in printed(capsys, *words, "fashion-mnist", "--pad", "32")
    assert "784 features" in printed(capsys, *words, "pixels")  # another --pad is another set
    in_folder(folder, {f"{k}.png": png(k, (64, 64)) for k in range(3)})
    assert "--pad" not in error(capsys, *words, "fashion-mnist")


def test_statistics_tell_what_was_converted(tmp_path, capsys):
    deep = Image.fromarray(np.arange(16, dtype=np.uint16).reshape(4, 4) * 4369)
    (tmp_path / "set").mkdir()
    deep.save(tmp_path / "set" / "0.png")
    Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4) * 17).save(tmp_path / "set" / "1.png")
    words = ["stats", tmp_path / "set", "--out", tmp_path / "x.npz", "--features", "pixels", "--json"]
    found = json.loads(printed(capsys, *words))
    assert found["notes"] == {"images of 16 bits, scaled to 8": 1}
    stored = read_statistics(tmp_path / "x.npz").statistics
    assert stored.features[0].tolist() == stored.features[1].tolist()  # the same ramp in both depths
