"""Sheets of faces with their captions, enlarged so that pixels are visible."""

import io
import textwrap
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from examples.faces.making import read_lines
from examples.faces.rendering import EDGE
from simdistill.method.shapes import Pictures
from simdistill.reports.pictures import GAP, LINE, LINES, WIDE, WIDTH, caption_font, captioned
from simdistill.support.files import write_atomically

TIMES = 8  # enlargement
COLUMNS = 6


def sheet(data: Path, path: Path, count: int, seed: int) -> None:
    """Write random faces of the zip `data` with their captions as a PNG at `path`; `ValueError` if it is none."""
    lines = read_lines(data)
    chosen = sorted(np.random.default_rng(seed).permutation(len(lines))[:count].tolist())
    edge = TIMES * EDGE
    height = edge + LINES * LINE + GAP
    rows = -(-len(chosen) // COLUMNS)
    picture = Image.new("RGB", (COLUMNS * (WIDTH + GAP) + GAP, rows * height + GAP), "white")
    pen, font = ImageDraw.Draw(picture), caption_font()
    with zipfile.ZipFile(data) as archive:
        for place, index in enumerate(chosen):
            x, y = GAP + place % COLUMNS * (WIDTH + GAP), GAP + place // COLUMNS * height
            with Image.open(io.BytesIO(archive.read(lines[index]["file_name"])), formats=["PNG"]) as face:
                picture.paste(face.resize((edge, edge), Image.Resampling.NEAREST), (x, y))
            for k, words in enumerate(textwrap.wrap(lines[index]["text"], WIDE, max_lines=LINES)):
                pen.text((x, y + edge + 2 + k * LINE), words, fill="black", font=font)
    content = io.BytesIO()
    picture.save(content, "PNG", optimize=True)
    write_atomically(path, content.getvalue())


def beside(path: Path, captions: Sequence[str], columns: Mapping[str, Pictures]) -> None:
    """Write faces of the same captions as a PNG: a row for each caption, a column for each set of pictures."""
    rows = [(caption, torch.stack([column[k] for column in columns.values()])) for k, caption in enumerate(captions)]
    write_atomically(path, captioned(rows, list(columns), edge=TIMES * EDGE))
