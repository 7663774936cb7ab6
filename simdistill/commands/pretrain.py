"""`simdistill pretrain`: train a teacher."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from simdistill.commands.common import ABOUT_RESUMING, Common, Resume, asks_to_resume, print_table, spare_threads
from simdistill.options import first_word, parse_options
from simdistill.runs import RunFolder
from simdistill.training.pretrain import Pretraining
from simdistill.workflows import pretraining


@dataclass(frozen=True)
class _Pretrain(Common):
    settings: Annotated[Pretraining, arg(name="")] = Pretraining()  # noqa: RUF009  (frozen)
    out: Path = Path("runs/digits-teacher")
    """Folder of the run; its generator.safetensors is a --teacher for distill."""
    overwrite: bool = False
    """Delete a run that is in the folder already."""
    log: tuple[str, ...] = ()
    """Services that get the metrics besides the run's folder: tensorboard, wandb, trackio."""


def run(words: Sequence[str]) -> None:
    """`simdistill pretrain digits …` or `simdistill pretrain --resume RUN`."""
    if asks_to_resume(words):
        asked = parse_options(Resume(), words, "pretrain", ABOUT_RESUMING)
        _spare_threads_for(pretraining.settings_of(RunFolder.open(asked.resume)))
        figures = pretraining.resume_pretraining(asked.resume, asked.device, asked.log)
        return print(json.dumps(figures)) if asked.json else print_table({"teacher": figures})
    name, rest = first_word(words, "pretrain", "DATA", ["digits"])
    about = "Train a class-conditional teacher by EDM's denoising loss. `simdistill pretrain digits …`."
    options = parse_options(_Pretrain(), rest, f"pretrain {name}", about)
    _spare_threads_for(options.settings)
    figures = pretraining.pretrain_digits(options.settings, options.out, options.overwrite, options.device, options.log)
    return print(json.dumps(figures)) if options.json else print_table({"teacher": figures})


def _spare_threads_for(settings: Pretraining) -> None:
    spare_threads(sum(p.numel() for p in settings.build((1, 8, 8), 10, 1.0).parameters()))
