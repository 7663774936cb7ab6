"""`simdistill encode`: encode prompts once, for text-to-image distillation."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tyro.conf import Positional

from simdistill.commands.common import Column, Common
from simdistill.config.options import first_word, parse_options
from simdistill.support.checks import require
from simdistill.support.files import check_output
from simdistill.teachers.encoders import tell_of_cut
from simdistill.training.processes import joined
from simdistill.workflows.encoding import encode


@dataclass(frozen=True)
class _Encode(Common):
    prompts: Positional[Path] = Path()
    """A .txt (one per line), .csv, .tsv, .parquet, .jsonl, .tar or .tar.gz, or a folder of them."""
    encoder: str = ""
    """Text encoder: the FOLDER of the teacher's diffusers pipeline.
    To train a teacher: the FOLDER of a transformers language model, or minilm, a packaged sentence encoder."""
    tokens: int = 0
    """Tokens per prompt, for a language model; 77 if not given. A pipeline has its own number."""
    out: Path | None = None
    """Output folder; PROMPTS-encoded beside the prompts if not given."""
    column: Column = ""
    batch: int = 32
    """Batch size: prompts that the encoder takes at a time."""


ABOUT = """Encode prompts once, so that distillation needs no text encoder in memory.

  simdistill encode captions.txt --encoder PixArt-XL-2-512x512
  simdistill distill pixart-512 --prompts captions-encoded …

To train a teacher:
  simdistill encode captions.txt --encoder minilm --out captions
  simdistill pretrain faces --prompts captions …

On several GPUs:
  torchrun --standalone --nproc-per-node 4 -m simdistill encode \\
      SA1B_caption.tar.gz --encoder PixArt-XL-2-512x512

- PROMPTS is a .txt (one per line), .csv, .tsv, .parquet, .jsonl, .tar or
  .tar.gz, or a folder of them.
- The required disk space is printed first.
- If interrupted, repeat the command: finished parts (of thousands of prompts)
  are kept.
- Repeated prompts are encoded once. Prompts longer than the encoder's limit are
  truncated; the end of the output says how many.
"""


def run(words: Sequence[str]) -> None:
    """`simdistill encode PROMPTS --encoder FOLDER …`."""
    prompts, rest = first_word(words, "encode", "PROMPTS")
    options = parse_options(_Encode(), [prompts, *rest], "encode PROMPTS", ABOUT)
    require(options.encoder != "", "--encoder", "", "given: the folder of a pipeline or a language model, or minilm")
    path = options.prompts
    out = options.out or path.with_name(path.name.split(".")[0] + "-encoded")
    check_output(out, folder=True)
    with joined(options.device) as (processes, device):
        try:
            done = encode(path, options.encoder, out, options.column, device, options.batch, options.tokens, processes)
        except KeyboardInterrupt:
            if processes.is_main:
                print(f"interrupted; finished parts are kept in {out}. Repeat the command to go on", file=sys.stderr)
            raise
        if not processes.is_main:
            return
    tell_of_cut(done.cut, done.prompts, done.limit)
    found = {"out": str(out), **asdict(done)}
    print(json.dumps(found) if options.json else f"{done.prompts:,} prompts in {out}, {done.size / 1e6:,.1f} MB")
