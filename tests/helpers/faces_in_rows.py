"""Faces that show their attributes as plain rows, and what reads them without a mistake."""

import numpy as np
import torch

from examples.faces.attributes import VALUES
from examples.faces.making import draw, line, write

SIZES = [len(values) for values in VALUES.values()]


def picture_of(attributes):
    """A row of the picture for each attribute, with two white pixels whose place is the number of its value."""
    picture = np.zeros((16, 16, 3), np.uint8)
    for row, (name, values) in enumerate(VALUES.items()):
        place = 2 * list(values).index(attributes[name])
        picture[row, place : place + 2] = 255
    return picture


class Reader(torch.nn.Module):
    """Reads such pictures without a mistake."""

    def forward(self, pictures):
        return torch.cat([pictures[:, 0, row, : 2 * size : 2] for row, size in enumerate(SIZES)], 1)


def in_rows(folder, train, held_out):
    """Such faces in `folder`, in the zips of the data set."""
    for part, count in (("train", train), ("held-out", held_out)):
        drawn = [draw(part, 0, index) for index in range(count)]
        lines = [line(index, face, caption) for index, (face, caption) in enumerate(drawn)]
        write(folder / f"{part}.zip", [picture_of(face.attributes) for face, _ in drawn], lines)
    return folder
