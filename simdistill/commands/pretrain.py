"""`simdistill pretrain`: train a teacher."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from tyro.conf import arg

from simdistill.commands.common import ABOUT_RESUMING, Common, Resume, asks_to_resume, limit_threads, print_table
from simdistill.config.options import first_word, parse_options
from simdistill.data.embeddings import read_encoding
from simdistill.data.images import open_images
from simdistill.runs.folder import RunFolder
from simdistill.support.checks import require
from simdistill.training.pretraining import PRETRAININGS, Pretraining
from simdistill.workflows import pretraining


@dataclass(frozen=True)
class _Pretrain(Common):
    settings: Annotated[Pretraining, arg(name="")] = PRETRAININGS["digits"]
    out: Path | None = None
    """Folder of the run, runs/NAME-teacher if not given; its generator.safetensors is a --teacher for distill."""
    overwrite: bool = False
    """Delete a run that is in the folder already."""
    log: tuple[str, ...] = ()
    """Services that get the metrics besides the run's folder: tensorboard, wandb, trackio."""


def run(words: Sequence[str]) -> None:
    """`simdistill pretrain NAME …` or `simdistill pretrain --resume RUN`."""
    if asks_to_resume(words):
        asked = parse_options(Resume(), words, "pretrain", ABOUT_RESUMING)
        _limit_threads_for(pretraining.settings_of(RunFolder.open(asked.resume)))
        figures = pretraining.resume_pretraining(asked.resume, asked.device, asked.log)
        return print(json.dumps(figures)) if asked.json else print_table({"teacher": figures})
    name, rest = first_word(words, "pretrain", "NAME", PRETRAININGS)
    options = parse_options(_Pretrain(settings=PRETRAININGS[name]), rest, f"pretrain {name}", _about())
    settings, out = options.settings, options.out or Path("runs") / f"{name}-teacher"
    require(
        settings.data != "", "--data", settings.data, f"given for {name}: a .zip or folder of images, or an archive"
    )
    _limit_threads_for(settings)
    figures = pretraining.pretrain(settings, out, options.overwrite, options.device, options.log)
    return print(json.dumps(figures)) if options.json else print_table({"teacher": figures})


def _limit_threads_for(settings: Pretraining) -> None:
    data = open_images(settings.data)
    text = read_encoding(Path(settings.prompts)).text if settings.prompts else None
    with torch.device("meta"):
        limit_threads(sum(p.numel() for p in settings.build(data.shape, data.classes, 1.0, text=text).parameters()))


def _about() -> str:
    names = ", ".join(PRETRAININGS)
    return f"""Train a teacher by EDM's denoising loss (Karras et al. 2022) on images.

  simdistill pretrain NAME [--data IMAGES]    NAME is one of {names}
  simdistill pretrain --resume RUN            goes on with an interrupted run, to the same weights bit by bit

The defaults below are those of NAME. IMAGES is a .zip of images with EDM's dataset.json, a folder of images (in one
for each class), cifar-10-python.tar.gz or cifar-10-binary.tar.gz, or a folder of IDX files as Fashion-MNIST's.
"""
