"""Classifiers of small images, whose hidden activations are a feature space for the metrics; some are shipped."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

from simdistill.data.images import ImageSet
from simdistill.method.shapes import Data
from simdistill.support.bar import progress_bar
from simdistill.support.json_text import json_object
from simdistill.support.tensors import read_metadata
from simdistill.teachers.weights import read_into, write_network


class ImageClassifier(nn.Module):
    """A convolutional classifier; its `features` standardised hidden activations are the feature space of the metrics.

    The first convolution sees the full resolution, each further one half of it, down to 4×4 pixels. Batch normalisation
    without parameters gives each feature mean 0 and variance 1 on the training set, which sets the
    scale of the Fréchet distance: a shift of every feature by one standard deviation costs the number of features.
    """

    def __init__(self, shape: tuple[int, ...], classes: int, features: int) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {"shape": list(shape), "classes": classes, "features": features}
        channels, size, _ = shape
        self.conv1, width = nn.Conv2d(channels, 32, 3, padding=1), 32
        self.halving: list[nn.Conv2d] = []
        while size > 4:
            conv = nn.Conv2d(width, min(2 * width, 128), 3, stride=2, padding=1)
            self.halving.append(conv)
            self.add_module(f"conv{1 + len(self.halving)}", conv)
            width, size = conv.out_channels, -(-size // 2)
        self.hidden, self.logits = nn.Linear(width * size**2, features), nn.Linear(features, classes)
        self.standardise = nn.BatchNorm1d(features, affine=False)
        self.dropout = nn.Dropout(0.3)

    def features(self, images: Data) -> Float[Tensor, "batch features"]:
        """The standardised hidden activations of `images` `[batch, *shape]` in [-1, 1]."""
        h = silu(self.conv1(images))
        for conv in self.halving:
            h = silu(conv(h))
        return self.standardise(self.hidden(self.dropout(h.flatten(1))))

    def forward(self, images: Data) -> Float[Tensor, "batch classes"]:
        """The class logits of `images` `[batch, *shape]` in [-1, 1]."""
        return self.logits(self.dropout(silu(self.features(images))))


def train_classifier(
    data: ImageSet, features: int, iterations: int = 3000, batch: int = 128, seed: int = 0
) -> ImageClassifier:
    """Fit an `ImageClassifier` to labelled `data`, randomly shifted by up to 1/16 of its size; returns it in eval mode.

    Raises `ValueError` for a set without labels.
    """
    if data.labels is None:
        raise ValueError(f"{data.name}: has no labels, which a classifier needs")
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    net = ImageClassifier(data.shape, data.classes, features)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    _, height, width = data.shape
    m = max(1, height // 16)
    with progress_bar("training a classifier", iterations) as bar:
        for _ in range(iterations):
            k = torch.randint(len(data), (batch,), generator=rng)
            dy, dx = torch.randint(-m, m + 1, (2,), generator=rng).tolist()
            padded = nn.functional.pad(data.batch(k.tolist()), (m, m, m, m), value=-1.0)
            shifted = padded[:, :, m + dy : m + dy + height, m + dx : m + dx + width]
            loss = nn.functional.cross_entropy(net(shifted), data.labels[k], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar()
    return net.eval()


@torch.no_grad()
def accuracy(classifier: ImageClassifier, data: ImageSet) -> float:
    """The classifier's accuracy on labelled `data`."""
    assert data.labels is not None
    right = 0
    for indices in torch.arange(len(data)).split(1000):
        right += int((classifier(data.batch(indices.tolist())).argmax(1) == data.labels[indices]).sum())
    return right / len(data)


def write_classifier(path: Path, classifier: ImageClassifier, **facts: Any) -> None:
    """Store a classifier with its arguments and `facts` (JSON values) about it, atomically."""
    write_network(path, classifier, classifier=classifier.arguments, **facts)


def read_classifier(path: Path) -> tuple[ImageClassifier, dict[str, Any]]:
    """The classifier in `path`, in eval mode and frozen, and the facts stored with it; `ValueError` if none."""
    metadata = read_metadata(path)
    try:
        about = json_object(str(path), metadata["simdistill"])["facts"]["classifier"]
        classifier = ImageClassifier(tuple(about["shape"]), about["classes"], about["features"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: holds no classifier; `simdistill features` makes one") from error
    return read_into(classifier, path)
