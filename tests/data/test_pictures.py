"""The reader of pictures: what a viewer shows, in 8 bits, whatever mode, depth, orientation or profile a file has."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from simdistill.data.images import open_images
from simdistill.data.notes import Notes
from simdistill.data.pictures import FORMATS, LARGEST_FILE, SUFFIXES, decoded, read_picture, tensor_of

ORIENTED = {
    1: lambda shown: shown,
    2: lambda shown: shown[:, ::-1],
    3: lambda shown: shown[::-1, ::-1],
    4: lambda shown: shown[::-1],
    5: lambda shown: shown.swapaxes(0, 1),
    6: lambda shown: np.rot90(shown, -1),
    7: lambda shown: shown[::-1, ::-1].swapaxes(0, 1),
    8: lambda shown: np.rot90(shown),
}
"""What a viewer shows of stored pixels, by their EXIF orientation (EXIF 2.32, 4.6.4: where row 0 and column 0 are)."""


def saved(image, form="PNG", **how):
    content = io.BytesIO()
    image.save(content, form, **how)
    return content.getvalue()


def oriented(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def over_white(colours, alpha):
    """Alpha compositing in exact arithmetic: colour · alpha + white · (1 - alpha)."""
    return (colours.astype(float) * alpha + 255.0 * (255 - alpha)) / 255


@st.composite
def written(draw):
    """A picture that Pillow writes as PNG: its mode, how it is written, and its colours as shown, `[h, w, 1 or 3]`."""
    height, width = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    numbers = lambda *shape, most=256: rng.integers(0, most, (height, width, *shape))  # noqa: E731
    mode = draw(
        st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "L clear", "P clear", "RGB clear", "I;16 clear"])
    )
    kind, clear = mode.partition(" ")[::2]
    how = {}
    if kind == "1":
        bits = numbers(most=2)
        return Image.fromarray((bits * 255).astype(np.uint8)).convert("1"), how, bits[..., None] * 255.0
    if kind == "I;16":
        levels = numbers(most=65536)
        shown = levels[..., None] / 257
        if clear:
            how["transparency"] = int(levels[0, 0])
            shown = np.where((levels == levels[0, 0])[..., None], 255.0, shown)
        return Image.fromarray(levels.astype(np.uint16)), how, shown
    if kind == "P":
        palette, places = rng.integers(0, 256, (8, 3)), numbers(most=8)
        image = Image.fromarray(places.astype(np.uint8)).convert("L")
        image = Image.frombytes("P", image.size, image.tobytes())
        image.putpalette(palette.astype(np.uint8).tobytes())
        alphas = rng.integers(0, 256, 8) if clear else np.full(8, 255)
        if clear:
            how["transparency"] = bytes(alphas.tolist())
        return image, how, over_white(palette[places], alphas[places][..., None])
    values = numbers(len(Image.new(kind, (1, 1)).getbands())).astype(np.uint8)
    image = Image.fromarray(values.squeeze(2) if kind == "L" else values, kind)
    colours, alpha = (
        (values, np.full_like(values[..., :1], 255)) if kind in ("L", "RGB") else (values[..., :-1], values[..., -1:])
    )
    if clear:
        first = values[0, 0]
        how["transparency"] = tuple(int(v) for v in first) if kind == "RGB" else int(first[0])
        alpha = np.where((values == first).all(2, keepdims=True), 0, 255)
    return image, how, over_white(colours, alpha.astype(float))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(written(), st.sampled_from(list(ORIENTED)))
def test_any_png_comes_out_as_a_viewer_shows_it(picture, orientation):
    image, how, shown = picture
    content = saved(image, exif=oriented(orientation), **how)
    found = decoded("x.png", content, Notes())
    expected = ORIENTED[orientation](shown)
    pixels = np.asarray(found, dtype=float).reshape((*expected.shape[:2], -1))
    assert found.mode == ("L" if expected.shape[2] == 1 else "RGB")
    np.testing.assert_allclose(
        pixels, expected, rtol=0, atol=0.51 if "transparency" not in how and image.mode[-1] != "A" else 1
    )


@pytest.mark.parametrize("orientation", ORIENTED)
@pytest.mark.parametrize(
    ("form", "mode", "how"),
    [
        ("TIFF", "CMYK", {}),
        ("TIFF", "RGB", {"compression": "tiff_deflate"}),
        ("TIFF", "L", {}),
        ("TIFF", "I;16", {}),
        ("TIFF", "LAB", {}),
        ("WEBP", "RGB", {"lossless": True}),
        ("JPEG", "CMYK", {"quality": 100}),
        ("JPEG", "L", {"quality": 100}),
    ],
)
def test_other_formats_are_turned_too(form, mode, how, orientation):
    """Corners of one colour each, of at least 8×8 pixels, so that JPEG keeps them."""
    corners = np.array(
        [[[200, 40, 40], [40, 200, 40], [40, 40, 200]], [[0, 0, 0], [250, 250, 250], [120, 90, 60]]], np.uint8
    )
    big = Image.fromarray(corners.repeat(16, 0).repeat(16, 1))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(big.convert("L")).astype(np.uint16) * 257)
    elif mode == "LAB":
        lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
        image = ImageCms.applyTransform(big, lab)
    else:
        image = big.convert(mode)
    found = decoded(f"x.{form}", saved(image, form, exif=oriented(orientation), **how), Notes())
    colours = np.asarray(big.convert("L" if mode in ("L", "I;16") else "RGB"))
    expected = ORIENTED[orientation](colours)
    centres = (np.asarray(part, float)[8::16, 8::16] for part in (found, expected))
    np.testing.assert_allclose(*centres, rtol=0, atol=6 if form == "JPEG" or mode == "LAB" else 0)


def test_grey_of_sixteen_bits_is_scaled_and_not_cut(tmp_path):
    levels = np.array([[0, 128, 30000], [32896, 65400, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    Image.fromarray(levels.astype(np.int32)).save(tmp_path / "wide.tif")
    (tmp_path / "deep.pgm").write_bytes(b"P5 3 2 65535\n" + levels.astype(">u2").tobytes())
    for name in ("deep.png", "wide.tif", "deep.pgm"):
        notes = Notes()
        assert np.asarray(read_picture(tmp_path / name, notes)).tolist() == [[0, 0, 117], [128, 254, 255]]
        assert notes.counts() == {"images of 16 bits, scaled to 8": 1}
    Image.fromarray(levels.astype(np.int32) * 1000).save(tmp_path / "deeper.tif")
    with pytest.raises(ValueError, match=r"deeper.tif: .*16 bits"):
        read_picture(tmp_path / "deeper.tif", Notes())


def test_floating_point_has_a_known_scale_or_is_refused(tmp_path):
    values = np.array([[0, 0.25, 1]], np.float32)
    Image.fromarray(values).save(tmp_path / "float.tif")
    assert np.asarray(read_picture(tmp_path / "float.tif", Notes())).tolist() == [[0, 64, 255]]
    for wrong in (values * 255, values - 1, values * np.nan):
        Image.fromarray(wrong).save(tmp_path / "wrong.tif")
        with pytest.raises(ValueError, match=r"wrong.tif: .*not in 0 … 1"):
            read_picture(tmp_path / "wrong.tif", Notes())


@pytest.mark.parametrize(
    ("background", "expected"), [("white", [255, 147]), ("black", [0, 20]), ("#808080", [128, 84]), ("red", [255, 147])]
)
def test_what_is_transparent_is_on_a_colour(background, expected):
    image = Image.fromarray(np.array([[[40, 0], [40, 128], [40, 255]]], np.uint8), "LA")
    notes = Notes()
    found = decoded("clear.png", saved(image), notes, background)
    assert found.mode == ("RGB" if background == "red" else "L")
    red = np.asarray(found.convert("RGB"))[0, :, 0].tolist()
    assert red == [*expected, 40]
    assert notes.counts() == {f"images with transparency, on {background}": 1}
    opaque = Image.new("RGBA", (2, 2), (1, 2, 3, 255))
    assert decoded("opaque.png", saved(opaque), notes).getpixel((0, 0)) == (1, 2, 3)
    assert len(notes.counts()) == 1  # nothing to say of it


def swapped_profile():
    """sRGB with red and green exchanged: a picture with it shows as green what it calls red."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    places = {bytes(profile[k : k + 4]): k + 4 for k in range(132, 132 + 12 * profile[131], 12)}
    red, green = (places[name] for name in (b"rXYZ", b"gXYZ"))
    profile[red : red + 8], profile[green : green + 8] = profile[green : green + 8], profile[red : red + 8]
    return bytes(profile)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_are_those_that_their_profile_names(mode):
    image, notes = Image.new("RGB", (2, 2), (255, 0, 0)).convert(mode), Notes()
    red = decoded("red.png", saved(image, icc_profile=swapped_profile()), notes)
    assert red.getpixel((0, 0)) == pytest.approx((0, 255, 0), abs=2)
    assert notes.counts() == {"images converted to sRGB from another colour profile": 1}
    assert decoded("broken.png", saved(image, icc_profile=b"no profile"), Notes()).getpixel((0, 0)) == (255, 0, 0)


def test_of_an_animation_the_first_frame_is_read():
    frames, notes = [Image.new("RGB", (3, 2), colour) for colour in ("red", "blue")], Notes()
    found = decoded("moving.gif", saved(frames[0], "GIF", save_all=True, append_images=frames[1:]), notes)
    assert found.getpixel((1, 1)) == (255, 0, 0)
    assert notes.counts() == {"images of several frames, of which the first is read": 1}


def test_every_format_and_suffix_of_the_list_is_read(tmp_path):
    for form, suffixes in FORMATS.items():
        for suffix in suffixes:
            folder = tmp_path / suffix[1:]
            folder.mkdir()
            image = Image.new("1" if suffix == ".pbm" else "L" if suffix == ".pgm" else "RGB", (4, 4), 255)
            image.save(folder / f"x{suffix.upper()}", form)
            found = open_images(folder).read([0])[0]
            assert torch.equal(found, tensor_of(decoded("x", saved(image, form), Notes())))
    assert len(SUFFIXES) == len(set(SUFFIXES))


def test_no_other_program_is_started(monkeypatch):
    """Pillow reads EPS by Ghostscript, whatever the file's name."""
    started = []
    monkeypatch.setattr(
        "PIL.EpsImagePlugin.Ghostscript", lambda *given: started.append(0) or Image.new("RGB", (8, 8)).im
    )
    eps = saved(Image.new("RGB", (8, 8)), "EPS")
    Image.open(io.BytesIO(eps)).load()
    assert started == [0]  # what Pillow does by itself
    with pytest.raises(ValueError, match=r"x\.png: cannot be decoded as an image \(none of PNG, JPEG"):
        decoded("x.png", eps, Notes())
    assert started == [0]


def test_every_picture_is_opened_by_a_list_of_formats():
    root = Path(__file__).parents[2]
    opened = [
        (path, line)
        for folder in ("simdistill", "examples")
        for path in (root / folder).rglob("*.py")
        for line in path.read_text().splitlines()
        if "Image.open(" in line
    ]
    assert len(opened) >= 5
    assert [line for _, line in opened if "formats=[" not in line] == []


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_bombs_and_damaged_files_are_refused_in_a_sentence(tmp_path):
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(ValueError, match=r"bomb\.png: cannot be decoded .*decompression bomb"):
        decoded("bomb.png", bomb, Notes())
    rng = np.random.default_rng(0)
    for form in ("PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP"):
        whole = saved(Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)), form)
        for _ in range(40):
            broken = bytearray(whole[: rng.integers(1, len(whole))])
            broken[rng.integers(len(broken))] ^= 1 << rng.integers(8)
            try:
                decoded("broken", bytes(broken), Notes())
            except ValueError as error:
                assert str(error).startswith("broken: cannot be decoded as an image")  # noqa: PT017
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    with pytest.raises(ValueError, match=r"size of .*large\.png = 67108865: must be at most 64 MiB"):
        read_picture(tmp_path / "large.png", Notes())
    with pytest.raises(ValueError, match=r"no\.png = 'no file': must be an image"):
        read_picture(tmp_path / "no.png", Notes())
