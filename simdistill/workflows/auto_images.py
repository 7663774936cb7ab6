"""The settings of a teacher's training on a set of images, by what the images are; docs/data.md tells the rules."""

import math
from collections.abc import Collection
from dataclasses import replace
from shlex import quote

import torch

from simdistill.config.auto import CPU_SPEED, GPU_SPEED, Choice
from simdistill.data.images import ImageSet, open_images
from simdistill.method.noise import LogNormal
from simdistill.support.checks import require
from simdistill.teachers.teacher import Teacher
from simdistill.training.footprint import forward
from simdistill.training.pretraining import PRETRAININGS, Pretraining
from simdistill.workflows.models import Device

SMALL = 8  # pixels a side, up to which an MLP is enough
SEEN = {False: 16, True: 64}  # pixels a side that the U-Net sees at most, on a CPU and on a GPU
COARSEST = 8  # … and at least
MANY = 4  # pixels a side of a patch, from which on details are lost
PASSES = 3  # forward passes' worth of work per image and iteration
SECONDS = {False: 1800.0, True: 43_200.0}
ITERATIONS = {False: (1500, 8000), True: (20_000, 400_000)}
AVERAGED = 0.1  # half-life of the EMA over the images of a training


def pretraining_for(
    base: Pretraining, device: Device = "cpu", given: Collection[str] = ()
) -> tuple[Pretraining, list[Choice]]:
    """The settings `base` with all that is chosen for its images, and the choices; its settings `given` stay.

    Raises `ValueError` for images that are not square, and for text and latents, which need a recipe's name.
    """
    named = "left out, or given with a recipe's name: simdistill pretrain faces …"
    for name in ("prompts", "autoencoder"):
        require(getattr(base, name) == "", f"--{name}", getattr(base, name), named)
    images, gpu = open_images(base.data), torch.device(device).type == "cuda"
    made = [choice for choice in (*_network(images, base, gpu), *_features(images, base)) if choice.name not in given]
    settings = replace(base, **{choice.name: choice.value for choice in made})
    length = [choice for choice in _length(images, settings, gpu, given) if choice.name not in given]
    return replace(settings, **{choice.name: choice.value for choice in length}), made + length


def _network(images: ImageSet, base: Pretraining, gpu: bool) -> list[Choice]:
    """The network, and what it sees of a picture."""
    shape = images.shape
    size = "×".join(map(str, shape))
    if max(shape[1:], default=0) <= SMALL:
        return [Choice("network", "mlp", f"samples of {size}"), Choice("batch", 256, "cheap")]
    convert = f"simdistill convert {quote(base.data)} OUT.zip --crop centre --size"
    smaller = 2 ** int(math.log2(min(shape[1:])))
    require(shape[1] == shape[2], "--data: images of size", size, f"square: {convert} {smaller}")
    edge, patch = _grid(max(shape[1], base.pad), SEEN[gpu])
    seen, told = edge // patch, "all pixels"
    if patch > 1:
        told = f"it sees {seen}×{seen}, each with {patch}×{patch} pixels"
    if patch > MANY:
        told += f"; smaller pictures are learned faster: {convert} {SEEN[gpu] * MANY // 2}"
    made = [
        Choice("network", "unet", f"images of {size}"),
        Choice("patch", patch, told),
        Choice("centre", "mean", "the mean of all values is subtracted"),
        Choice("noise", LogNormal(-0.7, 1.4), "a little more high noise than EDM's, as for the clothes"),
    ]
    if edge > shape[1]:
        made.append(Choice("pad", edge, f"{shape[1]} has no divisor that serves as a patch"))
    known = PRETRAININGS["cifar10-cond"] if gpu else PRETRAININGS["fashion-mnist"]
    why = "EDM's for CIFAR-10" if gpu else "the shipped clothes'"
    names = ("width", "depth", "channel_mult", "dropout", "batch", "lr")
    made += [Choice(name, getattr(known, name), why) for name in names]
    return [*made, Choice("attention", (min(16, seen // 2),), "below full resolution")]


def _grid(side: int, most: int) -> tuple[int, int]:
    """The edge of the images, with margins if needed, and the smallest patch with which a U-Net halves them twice."""
    for patch in range(1, side // COARSEST + 1):
        if side % patch == 0 and COARSEST <= side // patch <= most and side // patch % 4 == 0:
            return side, patch
    return _grid(most * math.ceil(side / most) if side > most else 4 * math.ceil(side / 4), most)


def _features(images: ImageSet, base: Pretraining) -> list[Choice]:
    if base.data == "digits":
        return [Choice("features", "digits", "shipped")]
    better = f"simdistill features {quote(base.data)} --out CLASSIFIER.safetensors" if images.classes else ""
    return [Choice("features", "pixels", f"a rough measure{f'; a better one: {better}' if better else ''}")]


def _length(images: ImageSet, settings: Pretraining, gpu: bool, given: Collection[str]) -> list[Choice]:
    """The number of iterations, and the average that follows from it."""
    shape = images.padded(settings.pad).shape
    classes = images.classes if settings.conditional else 0
    with torch.device("meta"):
        net = settings.build(shape, classes, 1.0)
    flops = max(2.0 * sum(p.numel() for p in net.parameters()), forward(Teacher(net, shape, classes), net, 1)[1])
    work, speed = PASSES * flops * settings.batch, GPU_SPEED if gpu else CPU_SPEED
    fewest, most = ITERATIONS[gpu]
    count = 100 * round(max(fewest, min(most, SECONDS[gpu] * speed / work)) / 100)
    length = settings.iterations if "iterations" in given else count
    hours = length * work / speed / 3600
    told = f"about {hours * 60:.0f} minutes" if hours < 2 else f"about {hours:,.0f} hours"
    half_life = float(round(AVERAGED * length * settings.batch, -2))
    why = f"{told} on {'a GPU' if gpu else 'a CPU core'}, {flops / 1e6:,.0f} MFLOP a sample and call"
    average = Choice("ema_half_life", half_life, "a tenth of the images of the training")
    return [Choice("iterations", count, why), average]
