"""The judge: a classifier of all nine attributes, to check whether a picture shows what its caption says.

It is like the classifiers of `simdistill features`, with a class for each value of each attribute and a softmax per
attribute. So its file also works as `--features judge.safetensors`.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Int
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from examples.faces.attributes import VALUES, Attributes, check
from examples.faces.making import read_lines
from examples.faces.rendering import EDGE
from simdistill.data.images import open_images
from simdistill.evaluation.features import ImageClassifier, read_classifier, write_classifier
from simdistill.method.shapes import Data
from simdistill.support.checks import require

FEATURES = 64
BATCH, LEARNING_RATE, WEIGHT_DECAY = 128, 2e-3, 1e-2
NOISE = 0.15  # standard deviation, at most, of what is added in training: generated pictures are not exactly flat
AT_ONCE = 1000

SIZES = [len(values) for values in VALUES.values()]


def train(data: Path, out: Path, iterations: int, seed: int) -> None:
    """Fit the judge to `data`/train.zip and store it at `out`; `ValueError` if there are no faces."""
    images, right = faces(data / "train.zip")
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    net = ImageClassifier((3, EDGE, EDGE), sum(SIZES), FEATURES)
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    for _ in track(range(iterations), "training the judge", console=Console(stderr=True), transient=True):
        k = torch.randint(len(images), (BATCH,), generator=rng)
        strength = NOISE * torch.rand(BATCH, 1, 1, 1, generator=rng)
        seen = images[k] + strength * torch.randn(images[k].shape, generator=rng)
        heads = net(seen).split(SIZES, dim=1)
        losses = [nn.functional.cross_entropy(head, right[k, j]) for j, head in enumerate(heads)]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
        schedule.step()
    write_classifier(out, net.eval(), attributes={name: list(values) for name, values in VALUES.items()})


def read_judge(path: Path) -> ImageClassifier:
    """The judge in a file; `ValueError` if it is none, or has other attributes."""
    judge, facts = read_classifier(path)
    known = {name: list(values) for name, values in VALUES.items()}
    remedy = "today's nine: `python -m examples.faces judge` trains one"
    require(facts.get("attributes") == known, f"{path}: attributes", facts.get("attributes"), remedy)
    return judge


@torch.no_grad()
def judged(judge: ImageClassifier, pictures: Data) -> Int[Tensor, "pictures 9"]:
    """The indices of the predicted values for pictures `[n, 3, 16, 16]` in [-1, 1]."""
    parts = [judge(part).split(SIZES, dim=1) for part in pictures.split(AT_ONCE)]
    return torch.cat([torch.stack([head.argmax(1) for head in heads], 1) for heads in parts])


def follow(judge: ImageClassifier, pictures: Data, specified: Sequence[Attributes]) -> tuple[float, float]:
    """How pictures follow their captions: the share of specified values that are predicted, and of pictures with all
    of theirs predicted.

    Raises `ValueError` for another number of captions, unknown values, or a caption that specifies nothing.
    """
    require(len(pictures) == len(specified), "specified", len(specified), f"{len(pictures)}, one per picture")
    right = numbers(specified)
    asked = right >= 0
    require(bool(asked.any(1).all()), "specified", {}, "at least one attribute per picture")
    seen = judged(judge, pictures) == right
    return float(seen[asked].float().mean()), float((seen | ~asked).all(1).float().mean())


def spread(judge: ImageClassifier, pictures: Data, specified: Sequence[Attributes]) -> float:
    """How uniformly pictures show what their captions leave open: 1 if all values are predicted equally often.

    The mean over attributes of `sum over n values of min(share, 1/n)`, the overlap with the uniform distribution of
    real faces. Shares are of the pictures whose captions leave the attribute open; one that no caption leaves open is
    omitted. Raises `ValueError` as `follow` does, and if the captions leave nothing open.
    """
    require(len(pictures) == len(specified), "specified", len(specified), f"{len(pictures)}, one per picture")
    seen, left_open = judged(judge, pictures), numbers(specified) < 0
    require(bool(left_open.any()), "specified", "all nine", "fewer of at least one picture")
    shares = [
        seen[left_open[:, k], k].bincount(minlength=n) / left_open[:, k].sum()
        for k, n in enumerate(SIZES)
        if left_open[:, k].any()
    ]
    return float(torch.stack([share.clamp(max=1 / len(share)).sum() for share in shares]).mean())


def report(judge: ImageClassifier, data: Path) -> dict[str, float]:
    """The judge's accuracy on `data`/held-out.zip by attribute, and as "all nine" the share without any error."""
    pictures, right = faces(data / "held-out.zip")
    seen = judged(judge, pictures) == right
    shares = {name: float(seen[:, k].float().mean()) for k, name in enumerate(VALUES)}
    return {**shares, "all nine": float(seen.all(1).float().mean())}


def faces(path: Path) -> tuple[Data, Int[Tensor, "pictures 9"]]:
    """The pictures in a zip of `make`, in [-1, 1], and the indices of their values; `ValueError` if it is none."""
    lines = read_lines(path)
    images = open_images(path)
    require(images.shape == (3, EDGE, EDGE), f"{path}: shape", images.shape, f"(3, {EDGE}, {EDGE})")
    require(len(images) == len(lines), f"{path}: pictures", len(images), f"{len(lines)}, as its metadata has")
    return images.batch(range(len(images))), numbers([line["attributes"] for line in lines])


def numbers(specified: Sequence[Attributes]) -> Int[Tensor, "pictures 9"]:
    """The indices of the values, -1 if not specified; `ValueError` for unknown ones."""
    for values in specified:
        check(values)
    order = {name: list(values) for name, values in VALUES.items()}
    return torch.tensor([[order[name].index(row[name]) if name in row else -1 for name in VALUES] for row in specified])
