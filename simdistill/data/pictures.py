"""The reader of pictures: files as every viewer shows them, in 8 bits.

Files are decoded by Pillow in this process, in a few formats only: others, such as EPS, would start other programs.
"""

import io
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageColor, ImageOps, UnidentifiedImageError
from torch import Tensor

from simdistill.data.notes import Notes
from simdistill.support.checks import require

FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm"),
}
"""The formats that are read, with the suffixes of their files. A file may be of another one than its suffix says."""
SUFFIXES = tuple(chain(*FORMATS.values()))
LARGEST_FILE = 2**26  # bytes of one image
DEEP = ("I;16", "I;16L", "I;16B", "I")  # Pillow's modes of grey images of 16 bits


def read_picture(path: Path, notes: Notes) -> Image.Image:
    """The picture in a file, as from `decoded`; also `ValueError` if it is larger than 64 MiB, or no file."""
    return decoded(str(path), content_of(path), notes)


def content_of(path: Path) -> bytes:
    """The bytes of a picture's file; `ValueError` if it is larger than 64 MiB, or no file."""
    require(path.is_file(), str(path), "no file", "an image")
    require(path.stat().st_size <= LARGEST_FILE, f"size of {path}", path.stat().st_size, "at most 64 MiB")
    return path.read_bytes()


def decoded(name: str, content: bytes, notes: Notes, background: str = "white") -> Image.Image:
    """The picture in the content of a file, in mode L if it is grey and RGB else.

    It is upright (EXIF), in 8 bits, in sRGB, and on the colour `background` where it is transparent; of several frames
    it is the first. Each of these is counted in `notes`. Raises `ValueError` if the file is damaged or of another
    format, or if its values have no known scale: more than 16 bits, or floating point outside 0 … 1.
    """
    try:
        with Image.open(io.BytesIO(content), formats=[*FORMATS]) as image:
            return _shown(name, image, notes, background)
    except UnidentifiedImageError as error:
        raise ValueError(f"{name}: cannot be decoded as an image (none of {', '.join(FORMATS)})") from error
    except Exception as error:  # Pillow documents no types: its decoders raise more than OSError for damaged files
        raise ValueError(f"{name}: cannot be decoded as an image ({error})") from error


def seen_size(content: bytes) -> tuple[int, int, int] | None:
    """Width, height and channels of the picture in the content of a file, by its header; None if it has none."""
    try:
        with Image.open(io.BytesIO(content), formats=[*FORMATS]) as image:
            return image.width, image.height, 1 if image.mode in ("1", "L", "LA", "F", *DEEP) else 3
    except Exception:  # as in `decoded`, which says what is wrong with it
        return None


def tensor_of(image: Image.Image) -> UInt8[Tensor, "channels height width"]:
    """The pixels of a picture in mode L or RGB."""
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def picture_of(pixels: UInt8[Tensor, "channels height width"]) -> Image.Image:
    """The picture of pixels of one channel or three."""
    return Image.fromarray(pixels.permute(1, 2, 0).squeeze(2).contiguous().numpy())


def _shown(name: str, image: Image.Image, notes: Notes, background: str) -> Image.Image:
    if image.getexif().get(ExifTags.Base.Orientation) in range(2, 9):  # asked first: a TIFF turns as it is loaded
        notes.add("images turned upright by EXIF", name)
    if getattr(image, "is_animated", False):
        notes.add("images of several frames, of which the first is read", name)
    upright = ImageOps.exif_transpose(image)
    if upright.mode in DEEP:
        notes.add("images of 16 bits, scaled to 8", name)
        upright = _scaled(upright)
    elif upright.mode == "F":
        notes.add("images of floating point, scaled from 0 … 1 to 8 bits", name)
        upright = _from_floats(upright)
    srgb = _in_srgb(upright)
    if srgb is not upright:
        notes.add("images converted to sRGB from another colour profile", name)
    elif upright.mode == "CMYK":
        notes.add("images converted from CMYK", name)
    if not srgb.has_transparency_data:
        return srgb.convert("L" if srgb.mode in ("1", "L") else "RGB")
    layer = srgb.convert("RGBA")
    if layer.getchannel("A").getextrema() != (255, 255):
        notes.add(f"images with transparency, on {background}", name)
    whole = Image.alpha_composite(Image.new("RGBA", layer.size, background), layer)
    red, green, blue = ImageColor.getrgb(background)[:3]
    grey = srgb.mode in ("1", "L", "LA") and red == green == blue
    return whole.getchannel("R") if grey else whole.convert("RGB")


def _scaled(image: Image.Image) -> Image.Image:
    """A 16-bit grey image in 8 bits; Pillow's own conversion would clip everything above 255."""
    levels = np.asarray(image).astype(np.int64)
    if levels.min() < 0 or levels.max() >= 2**16:
        raise ValueError("its values do not fit into 16 bits")
    clear = image.info.get("transparency")  # the level that a PNG declares transparent
    return _grey(np.round(levels / 257), None if clear is None else levels == clear)


def _from_floats(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("its floating-point values are not in 0 … 1")
    return _grey(np.round(values * 255))


def _grey(levels: NDArray[np.floating], clear: NDArray[np.bool_] | None = None) -> Image.Image:
    image = Image.fromarray(levels.astype(np.uint8))
    if clear is not None:
        image.putalpha(Image.fromarray(np.where(clear, 0, 255).astype(np.uint8)))
    return image


def _in_srgb(image: Image.Image) -> Image.Image:
    """An image converted to sRGB from its colour profile; the same if it has none or, as in browsers, a broken one."""
    profile = image.info.get("icc_profile")
    if not profile:
        return image
    mode = "RGBA" if image.has_transparency_data else "RGB"
    source = image.convert(mode) if image.mode in ("P", "PA", "LA", "RGBa", "1") else image
    try:
        given, wanted = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(source, given, wanted, outputMode=mode) or source
    except (ImageCms.PyCMSError, OSError):
        return image
