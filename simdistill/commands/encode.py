"""`simdistill encode`: prompts for text-to-image distillation, encoded once."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tyro.conf import Positional

from simdistill.commands.common import Common
from simdistill.config.options import first_word, parse_options
from simdistill.support.checks import require
from simdistill.teachers.encoders import tell_of_cut
from simdistill.training.processes import joined
from simdistill.workflows.encoding import encode


@dataclass(frozen=True)
class _Encode(Common):
    prompts: Positional[Path] = Path()
    """A .txt (one a line), .csv, .tsv, .parquet, .jsonl, .tar or .tar.gz, or a folder of them."""
    encoder: str = ""
    """Whose text encoder to use: a diffusers pipeline's FOLDER, the teacher's; or for a teacher that is still to be
    trained a language model's FOLDER of transformers', or minilm, a sentence encoder in a package."""
    tokens: int = 0
    """Tokens of a prompt that a language model keeps, 77 if not given; a pipeline has its own number."""
    out: Path | None = None
    """Folder of the encoded prompts; PROMPTS-encoded beside the prompts, if not given."""
    column: str = ""
    """What a table or JSON calls the prompts; the first of prompt, caption, text and txt if empty."""
    batch: int = 32
    """Prompts that the encoder takes at a time."""


ABOUT = """Encode prompts by a text encoder, once, before the distillation, which then needs none in memory.

  simdistill encode captions.txt --encoder PixArt-XL-2-512x512       for `distill … --prompts captions-encoded`
  simdistill encode captions.txt --encoder minilm --out captions     for `pretrain … --prompts captions`
  torchrun --standalone --nproc-per-node 4 -m simdistill encode SA1B_caption.tar.gz --encoder PixArt-XL-2-512x512

How much room they will take is said first. Stopped, the same command goes on with the part, of thousands of prompts,
that it was in. A prompt that comes twice is encoded once; those longer than the encoder's limit are cut, and counted at
the end.
"""


def run(words: Sequence[str]) -> None:
    """`simdistill encode PROMPTS --encoder FOLDER …`."""
    prompts, rest = first_word(words, "encode", "PROMPTS")
    options = parse_options(_Encode(), [prompts, *rest], "encode PROMPTS", ABOUT)
    require(options.encoder != "", "--encoder", "", "given: the folder of a pipeline or language model, or minilm")
    path = options.prompts
    out = options.out or path.with_name(path.name.split(".")[0] + "-encoded")
    with joined(options.device) as (processes, device):
        try:
            done = encode(path, options.encoder, out, options.column, device, options.batch, options.tokens, processes)
        except KeyboardInterrupt:
            if processes.is_main:
                print(f"stopped: the parts that are done stay in {out}; the same command goes on", file=sys.stderr)
            raise
        if not processes.is_main:
            return
    tell_of_cut(done.cut, done.prompts, done.limit)
    found = {"out": str(out), **asdict(done)}
    print(json.dumps(found) if options.json else f"{done.prompts:,} prompts in {out}, {done.size / 1e6:,.1f} MB")
