"""Encoded prompts in a folder: written in parts, read by rows from memory-mapped files."""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from simdistill.method.text import Text, TextInput
from simdistill.support.checks import require
from simdistill.support.files import write_atomically
from simdistill.support.json_text import read_json
from simdistill.support.tensors import check_header

ABOUT = "embeddings.json"
PROMPTS = "prompts.parquet"
EMPTY = "empty.safetensors"


@dataclass(frozen=True)
class Encoding:
    """How the prompts of a folder of embeddings were encoded, and how many `rows` (prompts) each part has.

    `encoder` is a hash of the encoder `name`, `digest` a hash of the prompts. With `trimmed`, padding tokens are left
    out, for networks that mask them.
    """

    name: str
    encoder: str
    text: TextInput
    trimmed: bool
    prompts: int
    digest: str
    rows: int

    @property
    def parts(self) -> list[range]:
        """The prompts of each part."""
        return [range(start, min(start + self.rows, self.prompts)) for start in range(0, self.prompts, self.rows)]


def part_of(folder: Path, k: int) -> Path:
    """The file of part k."""
    return folder / f"part-{k:05d}.safetensors"


def write_part(path: Path, text: Text, tokens: Sequence[int], encoding: Encoding) -> None:
    """Store encoded prompts atomically: their concatenated embeddings and their numbers of tokens before truncation."""
    kept = [
        s[: int(m.sum())] if encoding.trimmed else s
        for s, m in zip(text.prompt_embeds, text.attention_mask, strict=True)
    ]
    tensors = {
        "states": torch.cat(kept).contiguous(),
        "starts": torch.tensor([0, *(len(s) for s in kept)]).cumsum(0),
        "tokens": torch.tensor(tokens),
    }
    if text.pooled is not None:
        tensors["pooled"] = text.pooled.contiguous()
    write_atomically(path, save(tensors))


class _Part:
    """A part's file, memory-mapped: only the requested rows of the embeddings are read."""

    def __init__(self, path: Path, text: TextInput) -> None:
        check_header(path)
        try:
            self._file: Any = safe_open(path, framework="pt")
            self._states = self._file.get_slice("states")
            self.starts: list[int] = self._file.get_tensor("starts").tolist()
            self.tokens: Tensor = self._file.get_tensor("tokens")
            self.pooled: Tensor | None = self._file.get_tensor("pooled") if text.pooled else None
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{path}: damaged ({error}); delete it and repeat `simdistill encode`: other parts are kept"
            ) from error

    def states(self, row: int) -> Tensor:
        return self._states[self.starts[row] : self.starts[row + 1]]


class Embeddings:
    """The encoded prompts in a folder of `simdistill encode`; indexing by rows `[n]` gives their `Text`.

    Raises `ValueError`, naming the `option`, if the folder was not made by `simdistill encode` or is incomplete.
    """

    def __init__(self, folder: Path, option: str = "prompts") -> None:
        self.folder, self.encoding = folder, read_encoding(folder, option)
        self._paths = [part_of(folder, k) for k in range(len(self.encoding.parts))]
        missing = [path for path in (*self._paths, folder / EMPTY) if not path.is_file()]
        if missing:
            raise ValueError(
                f"{option} = '{folder}': {len(missing)} files are missing; repeat `simdistill encode` to complete it"
            )
        self._parts: dict[int, _Part] = {}

    def __len__(self) -> int:
        return self.encoding.prompts

    def __getitem__(self, rows: Tensor) -> Text:
        found: list[tuple[_Part, int]] = []
        for row in rows.tolist():
            require(0 <= row < len(self), "prompt", row, f"in 0 … {len(self) - 1}")
            k, place = divmod(row, self.encoding.rows)
            found.append((self._part(k), place))
        return self._text(found)

    def rows(self, prompts: Sequence[str]) -> Tensor:
        """The rows of these prompts, `[n]`; `ValueError` if one is missing."""
        known = pl.read_parquet(self.folder / PROMPTS)["prompt"]
        places = {prompt: row for row, prompt in enumerate(known)}
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in places]
        if missing:
            what = f"{len(missing):,} captions are not encoded, the first {missing[0]!r}; encode them all"
            raise ValueError(f"prompts = '{self.folder}': {what}")
        return torch.tensor([places[prompt] for prompt in prompts])

    @cached_property
    def empty(self) -> Text:
        """The empty prompt, one row: the unconditional embedding."""
        return self._text([(_Part(self.folder / EMPTY, self.encoding.text), 0)])

    def longer_than(self, limit: int) -> int:
        """The number of prompts with more tokens than `limit` before truncation."""
        return sum(int((self._part(k).tokens > limit).sum()) for k in range(len(self._paths)))

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self._paths)

    def _part(self, k: int) -> _Part:
        if k not in self._parts:
            self._parts[k] = _Part(self._paths[k], self.encoding.text)
        return self._parts[k]

    def _text(self, found: list[tuple[_Part, int]]) -> Text:
        """The prompts of those parts and rows, padded to the longest, or to full length if padding is not masked."""
        form, own = self.encoding.text, [part.states(row) for part, row in found]
        tokens = max([1, *map(len, own)]) if self.encoding.trimmed else form.tokens
        states = torch.zeros(len(found), tokens, form.width)
        mask = torch.zeros(len(found), tokens, dtype=torch.bool)
        pooled = torch.zeros(len(found), form.pooled) if form.pooled else None
        for i, (part, row) in enumerate(found):
            states[i, : len(own[i])] = own[i]
            mask[i, : len(own[i])] = True
            if pooled is not None and part.pooled is not None:
                pooled[i] = part.pooled[row]
        return Text(states, mask, pooled)


def read_encoding(folder: Path, option: str = "prompts") -> Encoding:
    """The description of a folder of embeddings; `ValueError`, naming the `option`, if it is not one."""
    require((folder / ABOUT).is_file(), option, str(folder), "a folder made by `simdistill encode`")
    try:
        values = read_json(folder / ABOUT)
        values["text"] = TextInput(**values["text"])
        return Encoding(**values)
    except (OSError, ValueError, TypeError, KeyError) as error:
        what = f"damaged ({type(error).__name__}: {error}); encode the prompts again"
        raise ValueError(f"{option} = '{folder}': {ABOUT} is {what}") from error


def check_place(folder: Path, prompts: int, digest: str) -> None:
    """Raise `ValueError` if a folder has anything else than embeddings of these prompts: to be asked first."""
    if not (folder / ABOUT).exists():
        if folder.exists() and any(folder.iterdir()):
            raise ValueError(f"--out = '{folder}': neither empty nor a folder of embeddings; give another folder")
        return
    there = read_encoding(folder)
    if (there.prompts, there.digest) != (prompts, digest):
        what = f"holds {there.prompts:,} prompts encoded by {there.name}, not these {prompts:,}"
        raise ValueError(f"--out = '{folder}': {what}; give another folder")


def begin(folder: Path, encoding: Encoding, prompts: list[str]) -> None:
    """Write the folder's description and its prompts unless they exist; `ValueError` if it holds anything else."""
    if (folder / ABOUT).exists():
        there = read_encoding(folder)
        same = replace(there, name=encoding.name)  # the encoder may have been moved
        if same != encoding:
            what = f"holds {there.prompts:,} prompts encoded by {there.name} in {there.text.tokens} tokens each"
            asked = f"{encoding.prompts:,} prompts by {encoding.name} in {encoding.text.tokens}"
            raise ValueError(f"--out = '{folder}': {what}, not {asked}; give another folder")
    else:
        check_place(folder, encoding.prompts, encoding.digest)
        write_atomically(folder / ABOUT, json.dumps(asdict(encoding), indent=2).encode())
    if not (folder / PROMPTS).exists():
        table = io.BytesIO()
        pl.DataFrame({"prompt": prompts}).write_parquet(table)
        write_atomically(folder / PROMPTS, table.getvalue())
