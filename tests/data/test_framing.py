"""Pictures made alike: by EDM's crop and ADM's, as their own code makes them; and what says that they are not."""

import json
import shlex

import numpy as np
import pytest
import torch
from picture_files import in_folder, noise, png
from PIL import Image

from simdistill.cli import main
from simdistill.data.framing import Framing
from simdistill.data.images import open_images
from simdistill.data.notes import Notes
from simdistill.data.pictures import tensor_of

SIZES = [(40, 40), (41, 64), (97, 50), (16, 33), (130, 131)]


def edms(image, edge):
    """`center_crop` of EDM's dataset_tool.py."""
    pixels = np.array(image)
    crop = np.min(pixels.shape[:2])
    rows, columns = pixels.shape[:2]
    pixels = pixels[(rows - crop) // 2 : (rows + crop) // 2, (columns - crop) // 2 : (columns + crop) // 2]
    return Image.fromarray(pixels).resize((edge, edge), Image.Resampling.LANCZOS)


def adms(image, edge):
    """`center_crop_arr` of guided-diffusion's image_datasets.py."""
    while min(*image.size) >= 2 * edge:
        image = image.resize(tuple(x // 2 for x in image.size), resample=Image.Resampling.BOX)
    scale = edge / min(*image.size)
    image = image.resize(tuple(round(x * scale) for x in image.size), resample=Image.Resampling.BICUBIC)
    pixels = np.array(image)
    y, x = (pixels.shape[0] - edge) // 2, (pixels.shape[1] - edge) // 2
    return Image.fromarray(pixels[y : y + edge, x : x + edge])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("crop", "theirs"), [("centre", edms), ("adm", adms)])
def test_crops_are_those_of_their_authors(crop, theirs, size, channels):
    image = noise(*size, channels)
    found = Framing(16, crop)("x", image, Notes())
    assert found.size == (16, 16)
    assert np.array_equal(np.asarray(found), np.asarray(theirs(image, 16)))


def test_a_crop_alone_keeps_the_pixels():
    image = noise(5, 8)
    found = Framing(crop="centre")("x", image, Notes())
    assert np.array_equal(np.asarray(found), np.asarray(image)[:, 1:6])


def test_channels():
    grey, colour, notes = noise(4, 4, 1), noise(4, 4), Notes()
    assert np.array_equal(np.asarray(Framing(channels=3)("g", grey, notes)), np.asarray(grey)[..., None].repeat(3, 2))
    luma = np.asarray(colour, float) @ [0.299, 0.587, 0.114]  # ITU-R 601-2
    np.testing.assert_allclose(np.asarray(Framing(channels=1)("c", colour, notes)), luma, atol=0.51)
    assert notes.counts() == {"images made RGB from grey": 1, "images made grey": 1}


@pytest.fixture
def mixed(tmp_path):
    """Of several sizes, two of them grey, one transparent."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for k, (size, channels) in enumerate(zip(SIZES, (3, 1, 3, 4, 1), strict=True)):
        noise(*size, channels, seed=k).save(folder / f"{k}.png")
    return folder


def test_convert_makes_a_set_of_a_folder_of_mixed_images(mixed, tmp_path, capsys):
    in_folder(mixed, {".DS_Store": "", "a.txt": ""})
    words = ["convert", str(mixed), str(tmp_path / "set.zip"), "--size", "32", "--crop", "centre", "--channels", "3"]
    assert main([*words, "--background", "black", "--json"]) == 0
    printed = capsys.readouterr()
    made = json.loads(printed.out)
    assert (made["images"], made["shape"]) == (5, [3, 32, 32])
    assert made["notes"] == {
        "files passed over (.DS_Store 1, .txt 1)": 2,
        "images cropped to a centred square": 4,
        "images shrunk to 32×32": 4,
        "images made RGB from grey": 2,
        "images with transparency, on black": 1,
        "images enlarged to 32×32": 1,
    }
    assert "photos: 2 files passed over (.DS_Store 1, .txt 1)\n" in printed.err
    assert "photos: 4 images cropped to a centred square\n" in printed.err
    images = open_images(tmp_path / "set.zip")
    expected = tensor_of(edms(Image.open(mixed / "2.png"), 32))
    assert torch.equal(images.read([2])[0], expected)


def test_a_set_in_memory_is_framed_too(tmp_path, capsys):
    assert main(["convert", "digits", str(tmp_path / "d.zip"), "--size", "16", "--channels", "3"]) == 0
    assert "449 images of the held-out part left out" in capsys.readouterr().err
    found, plain = open_images(tmp_path / "d.zip"), open_images("digits")
    assert (found.shape, found.labels.tolist()) == ((3, 16, 16), plain.labels.tolist())
    grey = Image.fromarray(((plain.batch([5])[0, 0] + 1) * 127.5).round().byte().numpy()).convert("RGB")
    assert torch.equal(found.read([5])[0], tensor_of(grey.resize((16, 16), Image.Resampling.LANCZOS)))


def test_margins(tmp_path, capsys):
    assert main(["convert", "digits", str(tmp_path / "d.zip"), "--pad", "11"]) == 0
    found, plain = open_images(tmp_path / "d.zip").read([3])[0, 0], open_images("digits").batch([3])[0, 0]
    assert torch.equal(found[1:9, 1:9], ((plain + 1) * 127.5).round().byte())
    assert int(found[1:9, 1:9].sum()) == int(found.sum()) > 0


@pytest.mark.parametrize("verb", ["convert", "stats", "features", "pretrain"])
def test_images_that_are_not_alike_are_told_with_the_remedy(mixed, tmp_path, verb, refused):
    words = {
        "convert": (mixed, tmp_path / "x.zip"),
        "stats": (mixed, "--out", tmp_path / "x.npz", "--features", "pixels"),
        "features": (mixed, "--out", tmp_path / "x.safetensors"),
        "pretrain": ("digits", "--data", mixed, "--features", "pixels", "--out", tmp_path / "run"),
    }[verb]
    if verb == "features":
        (mixed / "dataset.json").write_text(json.dumps({"labels": [[f"{k}.png", k] for k in range(5)]}))
    line = refused(verb, *words)
    assert "0.png has 3×40×40 and " in line
    out = tmp_path / "x.zip" if verb == "convert" else "photos-alike.zip"
    assert f"`simdistill convert {mixed} {out} --size " in line
    assert " --crop centre" in line


def test_the_remedy_names_what_differs(tmp_path):
    in_folder(tmp_path / "a b", {"0.png": png(0), "1.png": png(0, mode="L")})
    with pytest.raises(
        ValueError,
        match=r"0\.png has 3×4×4 and 1\.png has 1×4×4; `simdistill convert '.*a b' 'a b-alike\.zip' --channels 3`",
    ):
        open_images(tmp_path / "a b").read([0, 1])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--size", "8"], "1.png: size = '64×41': must be square for --size without --crop; `simdistill convert"),
        (["--crop", "adm"], "--crop = 'adm': must be with --size"),
        (["--size", "-1"], "--size = -1: must be 1 … 16384"),
        (["--channels", "2"], "--channels"),
        (["--background", "octarine"], "--background = 'octarine': must be a colour"),
        (["--size", "8", "--crop", "centre", "--channels", "3", "--pad", "7"], "--pad = 7: must be 0, or at least"),
    ],
)  # fmt: skip
def test_bad_options(mixed, tmp_path, words, said, refused):
    assert said in refused("convert", mixed, tmp_path / "x.zip", *words)
    assert not (tmp_path / "x.zip").exists()


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--size", "8"],
        ["--crop", "centre"],
        ["--size", "8", "--crop", "adm"],
        ["--channels", "1"],
        ["--channels", "3"],
        ["--size", "8", "--channels", "1", "--background", "#ff0000", "--pad", "32"],
        ["--background", "black"],
    ],
    ids=" ".join,
)
def test_the_suggested_command_needs_no_other(tmp_path, words, refused):
    """It has all that is needed, keeps what was given, and can be pasted."""
    folder, out = tmp_path / "my photos; all", tmp_path / "x.zip"
    pictures = {
        "0.png": png(0),
        "1.png": png(1),
        "2.png": png(2, mode="L"),
        "3.png": png(3, (6, 9)),
        "4.png": png(4, (9, 9)),
    }
    in_folder(folder, pictures)
    line = refused("convert", folder, out, *words)
    command = shlex.split(line.split("`")[1])
    assert command[:4] == ["simdistill", "convert", str(folder), str(out)]
    asked = dict(zip(words[::2], words[1::2], strict=True))
    given = dict(zip(command[4::2], command[5::2], strict=True))
    assert given.items() >= asked.items()
    assert main(command[1:]) == 0
    assert len(open_images(out)) == 5


def test_options_for_images_are_refused_for_weights(tmp_path, refused):
    line = refused("convert", tmp_path / "x.pkl", tmp_path / "x.safetensors", "--size", "8")
    assert "--size = 8: must be left out: it is only for images, into a .zip" in line
