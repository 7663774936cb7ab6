"""Folders and zips of small pictures, as people have them."""

import io
import zipfile

import numpy as np
from PIL import Image


def png(value=0, size=(4, 4), mode="RGB"):
    """The content of a PNG of one value."""
    content = io.BytesIO()
    Image.new(mode, size, value if mode == "L" else (value, 7, 9)).save(content, "PNG")
    return content.getvalue()


def in_folder(folder, files):
    """Write files by their relative names; text as UTF-8."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def in_zip(path, files):
    """The same in a zip."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def first_values(images):
    """The value that tells pictures of `png` apart, of each in a set."""
    return images.read(range(len(images)))[:, 0, 0, 0].tolist()


def noise(height, width, channels=3, seed=0):
    """A picture of noise."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))
