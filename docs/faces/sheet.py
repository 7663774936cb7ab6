"""Sheets of faces with their captions, enlarged so that each pixel is seen."""

import io
import textwrap
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from docs.faces.making import read_lines
from docs.faces.rendering import EDGE
from simdistill.data.images import pixels_of
from simdistill.files import write_atomically
from simdistill.shapes import Pictures

TIMES = 8  # how much larger
COLUMNS = 6
LINES, WIDE = 8, 34  # of a caption, and characters a line
LINE, WIDTH, GAP = 12, 216, 12  # pixels of a caption's lines, and between faces


def sheet(data: Path, path: Path, count: int, seed: int) -> None:
    """Write random pictures of a zip with their captions as a PNG at `path`; `ValueError` if `data` is none of ours."""
    lines = read_lines(data)
    chosen = sorted(np.random.default_rng(seed).permutation(len(lines))[:count].tolist())
    edge = TIMES * EDGE
    height = edge + LINES * LINE + GAP
    rows = -(-len(chosen) // COLUMNS)
    picture = Image.new("RGB", (COLUMNS * (WIDTH + GAP) + GAP, rows * height + GAP), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(10)
    with zipfile.ZipFile(data) as archive:
        for place, index in enumerate(chosen):
            x, y = GAP + place % COLUMNS * (WIDTH + GAP), GAP + place // COLUMNS * height
            with Image.open(io.BytesIO(archive.read(lines[index]["file_name"]))) as face:
                picture.paste(face.resize((edge, edge), Image.Resampling.NEAREST), (x, y))
            for k, words in enumerate(textwrap.wrap(lines[index]["text"], WIDE, max_lines=LINES)):
                pen.text((x, y + edge + 2 + k * LINE), words, fill="black", font=font)
    _write(path, picture)


def beside(path: Path, captions: Sequence[str], columns: Mapping[str, Pictures]) -> None:
    """Write faces of the same captions as a PNG: a row for each caption, a column for each set of pictures."""
    edge, head, told = TIMES * EDGE, LINE + GAP, WIDTH + GAP
    height = max(edge, LINES * LINE) + GAP
    size = (told + len(columns) * (edge + GAP) + GAP, head + len(captions) * height)
    picture = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(10)
    for row, caption in enumerate(captions):
        for k, words in enumerate(textwrap.wrap(caption, WIDE, max_lines=LINES)):
            pen.text((GAP, head + row * height + k * LINE), words, fill="black", font=font)
    for column, (name, pictures) in enumerate(columns.items()):
        x = told + GAP + column * (edge + GAP)
        pen.text((x, GAP // 2), name, fill="black", font=font)
        pixels = pixels_of(pictures[: len(captions)]).permute(0, 2, 3, 1).numpy()
        for row, face in enumerate(pixels):
            enlarged = Image.fromarray(face).resize((edge, edge), Image.Resampling.NEAREST)
            picture.paste(enlarged, (x, head + row * height))
    _write(path, picture)


def _write(path: Path, picture: Image.Image) -> None:
    content = io.BytesIO()
    picture.save(content, "PNG", optimize=True)
    write_atomically(path, content.getvalue())
