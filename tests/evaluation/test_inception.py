"""Inception-v3 against its published table of layers, and the two formats of weights that users bring."""

import io
import re

import pytest
import torch
from inception_by_hand import LAYERS, features_by_hand, random_state
from torch.nn.functional import interpolate, linear

from simdistill.evaluation import inception as formats
from simdistill.evaluation.extractors import load_extractor
from simdistill.evaluation.inception import as_bytes, read_inception
from simdistill.networks.inception import InceptionV3

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")


@pytest.fixture(scope="module")
def state():
    return random_state()


@pytest.fixture(scope="module")
def weights(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "any-name.bin"
    torch.save(state, path)
    return path


def test_the_network_has_the_published_tensors():
    with torch.device("meta"):
        network = InceptionV3()
    shapes = {k: tuple(v.shape) for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    expected = {"fc.weight": (1008, 2048), "fc.bias": (1008,)}
    for name, inputs, outputs, height, width in LAYERS:
        expected[f"{name}.conv.weight"] = (outputs, inputs, height, width)
        for key in ("weight", "bias", "running_mean", "running_var"):
            expected[f"{name}.bn.{key}"] = (outputs,)
    assert shapes == expected
    assert len(LAYERS) == 94
    # the 23,834,568 that Inception-v3 without an auxiliary classifier has, and eight classes of 2,049 more
    assert sum(p.numel() for p in network.parameters()) == 23_834_568 + 8 * 2049 == 23_850_960


def test_the_features_are_those_derived_by_hand(state, rng):
    network = InceptionV3().eval()
    network.load_state_dict(state)
    x = 2 * torch.rand(2, 3, 299, 299, generator=rng) - 1
    with torch.no_grad():
        features = network(x)
    expected = features_by_hand(state, x[:1])
    assert features.shape == (2, 2048)
    assert float((features > 0).double().mean()) > 0.5
    assert float((features[0] - features[1]).norm() / features[0].norm()) > 0.01
    torch.testing.assert_close(features[:1].double(), expected, rtol=2e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"images.shape = \[2, 3, 32, 32\]"):
        network(x[:, :, :32, :32])


# --- the two formats --------------------------------------------------------------------------------------------------


class StandIn(torch.nn.Module):
    """What NVIDIA's TorchScript takes and returns, at a thousandth of the cost: 8-bit images of any size in."""

    def __init__(self, dimensions: int = 2048, agrees: bool = True):
        super().__init__()
        rng = torch.Generator().manual_seed(1)
        self.agrees = agrees
        self.mixing = torch.nn.Parameter(torch.randn(48, dimensions, generator=rng))
        self.output = torch.nn.Linear(dimensions, 7)

    def forward(
        self, img: torch.Tensor, return_features: bool = False, use_fp16: bool = False, no_output_bias: bool = False
    ) -> torch.Tensor:
        assert img.dtype == torch.uint8
        assert img.shape[1] == 3
        pooled = torch.nn.functional.adaptive_avg_pool2d(img.float() / 255, 4).flatten(1)
        features = torch.relu(pooled @ self.mixing)
        if return_features:
            return features
        bias = torch.zeros_like(self.output.bias) if no_output_bias else self.output.bias
        logits = features @ self.output.weight.t() + bias
        return torch.softmax(logits if self.agrees else 2 * logits, 1)


def save_script(path, **arguments):
    torch.jit.script(StandIn(**arguments)).save(str(path))
    return path


@pytest.fixture
def images(rng):
    return 2.4 * torch.rand(5, 3, 32, 32, generator=rng) - 1.2


def test_torchscript_is_asked_as_its_publisher_asks_it(tmp_path, images):
    torch.manual_seed(3)
    path = save_script(tmp_path / "weights.pth")  # the name says nothing
    network = torch.jit.load(path)
    features, probabilities = read_inception(path)
    bytes_ = (images * 127.5 + 128).clip(0, 255).to(torch.uint8)
    expected = network(bytes_, return_features=True)
    assert expected.std() > 0.01
    torch.testing.assert_close(features(images), expected.detach())
    assert probabilities is not None
    torch.testing.assert_close(probabilities(features(images)), network(bytes_, no_output_bias=True).detach())
    assert not torch.allclose(probabilities(features(images)), network(bytes_), rtol=1e-3)  # the bias does matter


def test_probabilities_that_do_not_follow_from_the_features_are_left_out(tmp_path, images):
    features, probabilities = read_inception(save_script(tmp_path / "x.pt", agrees=False))
    assert features(images).shape == (5, 2048)
    assert probabilities is None


def test_the_state_dict_sees_images_as_pytorch_resizes_them(state, weights, images):
    features, probabilities = read_inception(weights)
    shown = (images * 127.5 + 128).clip(0, 255).to(torch.uint8).double() / 255
    resized = interpolate(shown, (299, 299), mode="bilinear", align_corners=False)
    expected = features_by_hand(state, 2 * resized[:1] - 1)
    found = features(images[:1])
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-4)
    logits = linear(found.double(), state["fc.weight"].double())  # without the bias, as Salimans et al.
    assert probabilities is not None
    torch.testing.assert_close(probabilities(found).double(), logits.softmax(1), rtol=1e-4, atol=1e-8)


def test_features_do_not_depend_on_the_batch(weights, images, monkeypatch):
    features, _ = read_inception(weights)
    whole = features(images[:2])
    monkeypatch.setattr(formats, "CPU_BATCH", 1)
    torch.testing.assert_close(features(images[:2]), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "2019's own"])
def test_state_dicts_of_old_and_new_pytorch_are_read(state, tmp_path, legacy):
    counted = state | {"Conv2d_1a_3x3.bn.num_batches_tracked": torch.tensor(0)}
    path = tmp_path / "weights.pt"
    torch.save(counted, path, _use_new_zipfile_serialization=not legacy)
    assert read_inception(path)[1] is not None


def test_the_name_of_an_extractor_is_that_of_its_weights(tmp_path, weights):
    one, other = save_script(tmp_path / "a.pt"), save_script(tmp_path / "b.pt", agrees=False)
    names = [load_extractor(str(path)).name for path in (one, other, weights)]
    assert len(set(names)) == 3
    assert all(re.fullmatch("inception-[0-9a-f]{8}", name) for name in names)
    one.rename(tmp_path / "c.pt")
    assert load_extractor(str(tmp_path / "c.pt")).name == names[0]


class Payload:
    def __reduce__(self):
        return print, ("executed",)


def damaged(kind, state, weights, tmp_path):
    """A file that is not what --inception takes."""
    path = tmp_path / "inception.pt"
    if kind == "page":
        path.write_text("\n <!DOCTYPE html><title>404</title>")
    elif kind == "cut off":
        path.write_bytes(weights.read_bytes()[:100_000])
    elif kind == "cut off, old format":
        buffer = io.BytesIO()
        torch.save(state, buffer, _use_new_zipfile_serialization=False)
        path.write_bytes(buffer.getvalue()[:100_000])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "program":
        torch.save({"a": Payload()}, path)
    elif kind == "missing tensors":
        torch.save({k: v for k, v in state.items() if not k.startswith("Mixed_7c")}, path)
    elif kind == "image classifier":
        torch.save(state | {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}, path)
    elif kind == "auxiliary classifier":
        torch.save(state | {"AuxLogits.fc.bias": torch.zeros(1000)}, path)
    elif kind == "no tensors":
        torch.save([1, 2], path)
    elif kind == "other script":
        torch.jit.script(torch.nn.Linear(3, 3)).save(str(path))
    elif kind == "other features":
        save_script(path, dimensions=64)
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("absent", "no such file; --inception takes"),
        ("page", "is a page of text, not weights"),
        ("cut off", "is truncated: its archive has no end"),
        ("cut off, old format", "or it is truncated"),
        ("empty", "or it is truncated"),
        ("program", "neither TorchScript nor a state dict of tensors alone"),
        ("missing tensors", r"45 missing, such as Mixed_7c.branch1x1.bn.bias$"),
        ("image classifier", r"shape of fc.weight = \[1000, 2048\]: must be \[1008, 2048\]"),
        ("auxiliary classifier", r"1 unknown, such as AuxLogits.fc.bias$"),
        ("no tensors", r"content = 'list': must be a state dict"),
        ("other script", r"is a TorchScript program, but not Inception-v3 as NVIDIA publishes it"),
        ("other features", r"features of 2 images = \[2, 64\]: must be \[2, 2048\]"),
    ],
)
def test_files_of_something_else_are_refused(kind, words, state, weights, tmp_path, capfd):
    path = damaged(kind, state, weights, tmp_path)
    with pytest.raises(ValueError, match=words) as caught:
        load_extractor(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "executed" not in capfd.readouterr().out


def test_images_become_the_bytes_that_are_compared():
    levels = torch.arange(256, dtype=torch.float32)
    x = (levels / 127.5 - 1).reshape(1, 1, 16, 16)
    assert torch.equal(as_bytes(x), levels.byte().reshape(1, 1, 16, 16).expand(1, 3, 16, 16))
    x = torch.tensor([-9.0, -1.0, 1.0, 9.0, 0.49 / 127.5 - 1, 0.51 / 127.5 - 1]).reshape(1, 3, 1, 2)
    assert as_bytes(x).flatten().tolist() == [0, 0, 255, 255, 0, 1]
    for shape in [(5, 2), (5, 2, 8, 8), (5, 64)]:
        with pytest.raises(ValueError, match="samples of shape"):
            as_bytes(torch.zeros(shape))
