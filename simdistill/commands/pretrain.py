"""`simdistill pretrain`: train a teacher on images."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import torch
from tyro.conf import arg

from simdistill.commands.auto import is_auto, stated, without_name
from simdistill.commands.common import Overwrite, limit_threads, print_table
from simdistill.commands.training import Resume, Training, asks_to_resume, resume_options
from simdistill.config.auto import NAME
from simdistill.config.options import first_word, parse_options
from simdistill.data.embeddings import read_encoding
from simdistill.data.images import open_images
from simdistill.runs.folder import RunFolder, check_new_run
from simdistill.support.checks import require
from simdistill.training.pretraining import PRETRAININGS, Pretraining
from simdistill.workflows import pretraining
from simdistill.workflows.auto import table, tell
from simdistill.workflows.auto_images import pretraining_for


@dataclass(frozen=True)
class _Pretrain(Training):
    settings: Annotated[Pretraining, arg(name="")] = PRETRAININGS["digits"]
    out: Path | None = None
    """Output folder; runs/NAME-teacher if not given. Its generator.safetensors is a --teacher for distill."""
    overwrite: Overwrite = False


def run(words: Sequence[str]) -> None:
    """`simdistill pretrain NAME …` or `simdistill pretrain --resume RUN`."""
    if asks_to_resume(words):
        asked = resume_options(Resume(), words, _Pretrain, "pretrain", "NAME")
        _limit_threads_for(pretraining.settings_of(RunFolder.open(asked.resume)))
        how = asked.device, asked.log, asked.iterations, asked.measurements
        return _report(pretraining.resume_pretraining(asked.resume, *how), asked.resume, asked.json)
    auto = is_auto(words, "--data")
    name, rest = (NAME, without_name(words)) if auto else first_word(words, "pretrain", "NAME", PRETRAININGS)
    base = Pretraining() if auto else PRETRAININGS[name]
    options = parse_options(_Pretrain(settings=base), rest, f"pretrain {name}", _about())
    settings, out = options.settings, options.out or Path("runs") / f"{name}-teacher"
    check_new_run(out, options.overwrite)
    kinds = "a .zip or folder of images, CIFAR-10's archive, or a folder of IDX files"
    require(settings.data != "", "--data", settings.data, f"given for {name}: {kinds}")
    if auto:
        settings, choices = pretraining_for(settings, options.device, stated(rest))
        tell(["auto: by the images:", *table(choices)])
    _limit_threads_for(settings)
    how = options.overwrite, options.device, options.log, options.measurements
    return _report(pretraining.pretrain(settings, out, *how), out, options.json)


def _report(figures: dict[str, Any], out: Path, as_json: bool) -> None:
    """Print the teacher's metrics, if it was measured."""
    if as_json:
        print(json.dumps(figures))
    elif figures:
        print_table({"teacher": figures})
    else:
        again = f"simdistill pretrain --resume {quote(str(out))} --evaluation-samples 500"
        print(f"{out}: not measured at the end; to do so: {again}")
    if not as_json:
        print(f"a one-step student of it: simdistill distill --teacher {quote(str(RunFolder(out).network))}")


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
