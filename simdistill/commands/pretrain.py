"""`simdistill pretrain`: train a teacher on images."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from tyro.conf import arg

from simdistill.commands.auto import is_auto, stated, without_name
from simdistill.commands.common import (
    Common,
    Log,
    Overwrite,
    Resume,
    asks_to_resume,
    limit_threads,
    print_table,
    resume_options,
)
from simdistill.config.auto import NAME
from simdistill.config.options import first_word, parse_options
from simdistill.data.embeddings import read_encoding
from simdistill.data.images import open_images
from simdistill.runs.folder import RunFolder
from simdistill.support.checks import require
from simdistill.support.files import check_output
from simdistill.training.pretraining import PRETRAININGS, Pretraining
from simdistill.workflows import pretraining
from simdistill.workflows.auto import table, tell
from simdistill.workflows.auto_images import pretraining_for


@dataclass(frozen=True)
class _Pretrain(Common):
    settings: Annotated[Pretraining, arg(name="")] = PRETRAININGS["digits"]
    out: Path | None = None
    """Output folder; runs/NAME-teacher if not given. Its generator.safetensors is a --teacher for distill."""
    overwrite: Overwrite = False
    log: Log = ()


def run(words: Sequence[str]) -> None:
    """`simdistill pretrain NAME …` or `simdistill pretrain --resume RUN`."""
    if asks_to_resume(words):
        asked = resume_options(Resume(), words, _Pretrain, "pretrain", "NAME")
        _limit_threads_for(pretraining.settings_of(RunFolder.open(asked.resume)))
        figures = pretraining.resume_pretraining(asked.resume, asked.device, asked.log, asked.iterations)
        return print(json.dumps(figures)) if asked.json else print_table({"teacher": figures})
    auto = is_auto(words, "--data")
    name, rest = (NAME, without_name(words)) if auto else first_word(words, "pretrain", "NAME", PRETRAININGS)
    base = Pretraining() if auto else PRETRAININGS[name]
    options = parse_options(_Pretrain(settings=base), rest, f"pretrain {name}", _about())
    settings, out = options.settings, options.out or Path("runs") / f"{name}-teacher"
    check_output(out, folder=True)
    kinds = "a .zip or folder of images, CIFAR-10's archive, or a folder of IDX files"
    require(settings.data != "", "--data", settings.data, f"given for {name}: {kinds}")
    if auto:
        settings, choices = pretraining_for(settings, options.device, stated(rest))
        tell(["auto: by the images:", *table(choices)])
    _limit_threads_for(settings)
    figures = pretraining.pretrain(settings, out, options.overwrite, options.device, options.log)
    return print(json.dumps(figures)) if options.json else print_table({"teacher": figures})


def _limit_threads_for(settings: Pretraining) -> None:
    data = open_images(settings.data).padded(settings.pad)
    text = read_encoding(Path(settings.prompts)).text if settings.prompts else None
    with torch.device("meta"):
        limit_threads(sum(p.numel() for p in settings.build(data.shape, data.classes, 1.0, text=text).parameters()))


def _about() -> str:
    names = ", ".join(PRETRAININGS)
    return f"""Train a teacher on images by EDM's denoising loss (Karras et al. 2022).

  simdistill pretrain --data IMAGES           settings for IMAGES, by their size
  simdistill pretrain NAME [--data IMAGES]
  simdistill pretrain --resume RUN

- NAME is one of {names}.
  The defaults below are those of NAME.
- IMAGES is a .zip with EDM's dataset.json, a folder of images (one folder per
  class), cifar-10-python.tar.gz, cifar-10-binary.tar.gz, or a folder of IDX
  files such as Fashion-MNIST's.
- --resume continues an interrupted run; on a CPU, the weights end bit-identical
  to those of an uninterrupted one.
"""
