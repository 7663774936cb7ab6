"""Encoding prompts once before a training, so that no text encoder is in memory during it."""

import hashlib
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from simdistill.data.embeddings import EMPTY, Embeddings, Encoding, begin, check_place, part_of, write_part
from simdistill.data.notes import Notes
from simdistill.data.prompts import read_prompts
from simdistill.method.text import Text
from simdistill.support.bar import progress_bar
from simdistill.support.checks import require
from simdistill.support.files import remove_leftovers
from simdistill.support.libraries import TEXT, need
from simdistill.teachers.encoders import PACKAGES, TextEncoder, digest_of, load_encoder
from simdistill.teachers.loading import is_code, load_teacher
from simdistill.training.processes import ALONE, Processes
from simdistill.workflows.models import Device

PART = 2**30  # bytes of a part, before padding is trimmed
MOST = 4096  # prompts per part
LOOKED_AT = 1000  # prompts from whose tokens the required disk space is estimated


@dataclass(frozen=True)
class Encoded:
    """The result of `encode`: the numbers of prompts and of those truncated to `limit` tokens, the size in bytes.

    `notes` count what was left out of the prompts.
    """

    prompts: int
    cut: int
    limit: int
    size: int
    notes: dict[str, int]


def encode(
    prompts: Path,
    encoder: str,
    out: Path,
    column: str = "",
    device: Device = "cpu",
    batch: int = 32,
    tokens: int = 0,
    processes: Processes = ALONE,
) -> Encoded:
    """Encode the prompts in a file or folder (see `read_prompts`) with an `encoder` (see `load_encoder`).

    The encoder may also be `package.module:function`: the encoder of the teacher that it returns.

    The parts are written into the folder `out`; existing ones are kept. With n `processes`, each encodes every n-th
    part. The required disk space is first printed to stderr.

    Raises `ValueError` if prompts or encoder cannot be read, if `out` holds other prompts, or if the disk is too full.
    """
    require(batch >= 1, "batch", batch, "at least 1")
    if encoder in PACKAGES and not Path(encoder).exists():
        need(f"--encoder {encoder}", *TEXT)
    notes = Notes()
    texts = read_prompts(prompts, column, notes=notes)
    if processes.is_main:
        notes.tell(prompts.name)
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    processes.on_main(lambda: remove_leftovers(out))
    processes.on_main(lambda: check_place(out, len(texts), digest))
    if is_code(encoder):  # a pipeline of the user's own family
        encoder = load_teacher(encoder).asked.encoder
    dtype = torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32
    with progress_bar("loading the text encoder", shown=processes.is_main):
        loaded = load_encoder(encoder, device, dtype, tokens)
    require(
        tokens in (0, loaded.limit, loaded.text.tokens), "--tokens", tokens, f"left out: {encoder} keeps {loaded.limit}"
    )
    form, name = loaded.text, str(Path(encoder).resolve()) if Path(encoder).exists() else encoder
    most = max(1, min(MOST, PART // (2 * form.tokens * form.width)))
    encoding = Encoding(name, digest_of(encoder) or "", form, loaded.trimmed, len(texts), digest, most)
    processes.on_main(lambda: begin(out, encoding, texts))
    parts = {part_of(out, k): rows for k, rows in enumerate(encoding.parts)}
    # one process decides for all: another might begin to write meanwhile
    missing = processes.on_main(lambda: [path for path in parts if not path.exists()])
    processes.on_main(lambda: _announce(texts, loaded, encoding, len(missing), out))
    mine = missing[processes.rank :: processes.world_size]
    with progress_bar("encoding", sum(len(parts[path]) for path in mine), processes.is_main) as advance:
        for path in mine:
            rows = parts[path]
            _encode(texts[rows.start : rows.stop], loaded, encoding, path, batch, advance)
    processes.on_main(lambda: write_part(out / EMPTY, loaded.empty().half(), [0], encoding))
    processes.all_reduce(torch.zeros(1))  # wait until all have written theirs
    done = Embeddings(out)
    return Encoded(len(texts), done.longer_than(loaded.limit), loaded.limit, done.size, notes.counts())


def _encode(
    texts: Sequence[str],
    encoder: TextEncoder,
    encoding: Encoding,
    path: Path,
    batch: int,
    advance: Callable[[int], None],
) -> None:
    """Encode one part, batching prompts of similar length to reduce padding."""
    order, found = sorted(range(len(texts)), key=lambda k: len(texts[k])), list[Text]()
    for start in range(0, len(texts), batch):
        found.append(encoder([texts[k] for k in order[start : start + batch]]).half())
        advance(len(found[-1]))
    text = Text.cat(found)[torch.tensor(order).argsort()]
    finite = bool(text.prompt_embeds.isfinite().all())
    require(finite, "the encoder's output", "too large", "below 65504, to be stored in half precision")
    write_part(path, text, encoder.tokens(texts), encoding)


def _announce(texts: Sequence[str], encoder: TextEncoder, encoding: Encoding, parts: int, out: Path) -> None:
    """Print the disk space that the missing parts require; `ValueError` if there is less."""
    sample = texts[:: max(1, len(texts) // LOOKED_AT)]
    form, counts = encoding.text, encoder.tokens(sample)
    kept = sum(min(n, form.tokens) for n in counts) / len(counts) if encoding.trimmed else form.tokens
    share = parts / len(encoding.parts)
    size, free = share * 2 * len(texts) * (kept * form.width + form.pooled), shutil.disk_usage(out).free
    print(
        f"{len(texts):,} distinct prompts, {kept:.1f} tokens of {form.width} numbers each, in half precision: "
        f"requires {_gigabytes(size)} in {out}; {_gigabytes(free)} are free",
        file=sys.stderr,
    )
    require(size < free, f"--out = '{out}': free bytes", free, f"at least {size:,.0f}; use an --out on another disk")


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size > 1e8 else f"{size / 1e6:.1f} MB"
