"""Sets of images: what is read is what was written, bad files are refused by name, and nothing in them is executed."""

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from simdistill.data import images as data_images
from simdistill.data.images import array_set, open_images
from simdistill.data.pictures import LARGEST_FILE
from simdistill.workflows import pretraining


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, 6, 4, 3), dtype=np.uint8)


def png(image, form="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, form)
    return buffer.getvalue()


def zipped(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def named(pixels):
    return {f"00000/img{k:08d}.png": png(image) for k, image in enumerate(pixels)}


def listing(labels):
    return json.dumps({"labels": labels})


def values(pixels):
    """[0, 255] to [-1, 1], channels first."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).double() * 2 / 255 - 1


def test_a_zip_of_edms(tmp_path, pixels):
    files = named(pixels)
    labels = [[name, 4 - k] for k, name in enumerate(files)]
    images = open_images(zipped(tmp_path / "set.zip", {**files, "dataset.json": listing(labels[::-1])}))
    assert (len(images), images.shape, images.classes, images.name) == (5, (3, 6, 4), 5, "set.zip")
    assert images.labels.tolist() == [4, 3, 2, 1, 0]
    assert images.held_out is None
    drawn = images.batch([3, 0, 3])
    assert drawn.dtype == torch.float32
    torch.testing.assert_close(drawn.double(), values(pixels)[[3, 0, 3]], rtol=0, atol=1e-6)
    everything = values(pixels)
    mean, squares = images.moments()
    torch.testing.assert_close(mean, everything.mean(0), rtol=0, atol=1e-7)
    torch.testing.assert_close(squares, everything.square().mean(0), rtol=0, atol=1e-7)
    unlabelled = images.without_labels()
    assert (unlabelled.classes, unlabelled.labels, len(unlabelled)) == (0, None, 5)


@pytest.mark.parametrize("files", [{}, {"dataset.json": listing(None)}], ids=["no list", "null"])
def test_a_zip_without_labels(tmp_path, pixels, files):
    assert open_images(zipped(tmp_path / "set.zip", named(pixels) | files)).classes == 0


def test_a_folder_of_folders(tmp_path, pixels):
    for k, folder in enumerate(["cats", "ants", "cats", "bees", "ants"]):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{k}.png").write_bytes(png(pixels[k]))
    (tmp_path / "cats" / ".hidden.png").write_bytes(b"")
    images = open_images(tmp_path)
    assert images.labels.tolist() == [0, 0, 1, 2, 2]
    torch.testing.assert_close(images.batch(range(5)).double(), values(pixels)[[1, 4, 3, 0, 2]], rtol=0, atol=1e-6)
    names = ["cats/0.png", "ants/1.png", "cats/2.png", "bees/3.png", "ants/4.png"]
    (tmp_path / "dataset.json").write_text(listing([[name, k] for k, name in enumerate(names)]))
    assert open_images(tmp_path).labels.tolist() == [1, 4, 3, 0, 2]  # the list wins


def test_a_plain_folder_of_grey_images_is_unlabelled(tmp_path, pixels):
    for k in range(3):
        (tmp_path / f"{k}.png").write_bytes(png(pixels[k, :, :, 0]))
    images = open_images(tmp_path)
    assert (images.shape, images.labels) == ((1, 6, 4), None)
    torch.testing.assert_close(images.batch([2])[0, 0].double(), values(pixels)[2, 0], rtol=0, atol=1e-6)


def test_palettes_and_alpha_become_colours(tmp_path, pixels):
    image = Image.fromarray(pixels[0]).quantize(4)
    image.save(tmp_path / "0.png")
    Image.fromarray(pixels[1]).convert("RGBA").save(tmp_path / "1.png")
    drawn = open_images(tmp_path).batch([0, 1])
    expected = torch.from_numpy(np.stack([np.asarray(image.convert("RGB")), pixels[1]]))
    torch.testing.assert_close(drawn, expected.permute(0, 3, 1, 2).float() / 127.5 - 1, rtol=0, atol=1e-6)


def test_a_set_larger_than_memory_is_read_as_it_is_asked_for(tmp_path, pixels, monkeypatch):
    monkeypatch.setattr("simdistill.data.images.IN_MEMORY", 100)
    images = open_images(zipped(tmp_path / "set.zip", named(pixels)))
    decode, decoded = data_images.decoded, []
    monkeypatch.setattr(data_images, "decoded", lambda name, *rest: decoded.append(name) or decode(name, *rest))
    for _ in range(2):  # nothing is kept
        torch.testing.assert_close(images.batch([4, 1]).double(), values(pixels)[[4, 1]], rtol=0, atol=1e-6)
    assert sorted(name[-5:] for name in decoded) == ["1.png", "1.png", "4.png", "4.png"]


BAD_ZIPS = {
    "not a valid zip": b"PK\x03\x04 and no more",
    "images = 0": {"readme.txt": b"none"},
    "cannot be decoded as an image": {"0.png": b"\x89PNG\r\n\x1a\n and no more"},
    "label of 0.png = None: must be in dataset.json": {"dataset.json": listing([["1.png", 3]])},
    "dataset.json must have EDM's form": {"dataset.json": b"[1, 2]"},
    "labels in dataset.json = .*: must be class numbers": {"dataset.json": listing([["0.png", [0.5, 0.5]]])},
}


@pytest.mark.parametrize("said", BAD_ZIPS)
def test_bad_zips(tmp_path, pixels, said):
    path, content = tmp_path / "bad.zip", BAD_ZIPS[said]
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        zipped(path, ({"0.png": png(pixels[0])} if "dataset.json" in content else {}) | content)
    with pytest.raises(ValueError, match=said) as error:
        open_images(path)
    assert "bad.zip" in str(error.value)


def test_one_image_of_another_size_or_damaged_is_named(tmp_path, pixels):
    files = {"0.png": png(pixels[0]), "1.png": png(pixels[1, :5]), "2.png": png(pixels[2])[:60]}
    images = open_images(zipped(tmp_path / "set.zip", files))
    with pytest.raises(ValueError, match=r"but 0\.png has 3×6×4 and 1\.png has 3×5×4; `simdistill convert .*--size 4"):
        images.batch([0, 1])
    alone = open_images(zipped(tmp_path / "two.zip", {name: files[name] for name in ("0.png", "2.png")}))
    with pytest.raises(ValueError, match=r"2\.png: cannot be decoded"):
        alone.batch([1])


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.png", bytes(LARGEST_FILE + 1))
    with pytest.raises(ValueError, match=r"size of 0\.png = 67108865: must be at most 64 MiB"):
        open_images(tmp_path / "bomb.zip")


@pytest.mark.parametrize("name", ["nothing", "file.txt", "set.tar.gz"])
def test_what_is_no_set(tmp_path, name):
    if name != "nothing":
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=name):
        open_images(tmp_path / name)


def idx(array):
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def fashion(tmp_path):
    """Four training images, plain, and two test images, gzipped, of 28×28."""
    draw = np.random.default_rng(1)
    images = {"train": draw.integers(0, 256, (4, 28, 28)), "t10k": draw.integers(0, 256, (2, 28, 28))}
    for part, of_part in images.items():
        labels = np.arange(len(of_part)) + 3
        contents = {f"{part}-images-idx3-ubyte": idx(of_part), f"{part}-labels-idx1-ubyte": idx(labels)}
        for name, content in contents.items():
            if part == "train":
                (tmp_path / name).write_bytes(content)
            else:
                (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    return images


def test_idx_files_get_a_margin_if_asked(tmp_path, fashion):
    plain = open_images(tmp_path)
    assert (plain.shape, plain.held_out.shape, plain.padded(28) is plain) == ((1, 28, 28), (1, 28, 28), True)
    assert torch.equal(plain.read(range(4))[:, 0], torch.from_numpy(fashion["train"].astype(np.uint8)))
    with pytest.raises(ValueError, match=r"--pad = 27: must be 0, or at least .*, which are 1×28×28"):
        plain.padded(27)
    images = plain.padded(32)
    assert (len(images), images.shape, images.labels.tolist()) == (4, (1, 32, 32), [3, 4, 5, 6])
    assert (len(images.held_out), images.held_out.labels.tolist()) == (2, [3, 4])
    for found, part in ((images, "train"), (images.held_out, "t10k")):
        drawn = found.batch(range(len(found)))[:, 0].double()
        inner = torch.from_numpy(fashion[part]).double() * 2 / 255 - 1
        torch.testing.assert_close(drawn[:, 2:30, 2:30], inner, rtol=0, atol=1e-6)
        drawn[:, 2:30, 2:30] = -1
        assert bool((drawn == -1).all())


@pytest.mark.parametrize(("words", "shape"), [([], "(1, 32, 32)"), (["--pad", "0"], "(1, 28, 28)")])
def test_the_settings_for_fashion_mnist_ask_for_the_margin(tmp_path, fashion, monkeypatch, refused, words, shape):
    """The shipped teacher is of 32×32; without the margin the images stay as they are."""

    def trainer(data, *rest):
        raise ValueError(f"trains on {data.shape}, held out {data.held_out.shape}")

    monkeypatch.setattr(pretraining, "PretrainingTrainer", trainer)
    asked = ["pretrain", "fashion-mnist", "--data", tmp_path, "--features", "pixels", "--out", tmp_path / "run", *words]
    assert f"trains on {shape}, held out {shape}" in refused(*asked)


@pytest.mark.parametrize("cut", [3, 9, 500])
def test_damaged_idx_files(tmp_path, fashion, cut):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match="train-images-idx3-ubyte: not a complete IDX file"):
        open_images(tmp_path)


def test_missing_and_unequal_idx_files(tmp_path, fashion):
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(3)))
    with pytest.raises(ValueError, match="labels of train = 3: must be 4"):
        open_images(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(b"\x1f\x8b and no more")
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(4)))
    with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte\.gz: damaged"):
        open_images(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ValueError, match="t10k-labels-idx1-ubyte = None: must be in the folder"):
        open_images(tmp_path)


def tarball(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"cifar-10/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


BATCHES = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]


def cifar(form):
    """Six batches of two images: batch k holds the numbers k, k + 1, … modulo 256, and the labels k and 9 - k."""
    rows = {name: (np.arange(2 * 3072).reshape(2, 3072) + k).astype(np.uint8) for k, name in enumerate(BATCHES)}
    labels = {name: [k, 9 - k] for k, name in enumerate(BATCHES)}
    if form == "binary":
        return {
            f"{name}.bin": np.concatenate([np.array(labels[name], np.uint8)[:, None], rows[name]], 1).tobytes()
            for name in BATCHES
        }
    # protocol 3 is the last that describes arrays as the archive's own protocol 2 does
    return {name: pickle.dumps({b"data": rows[name], b"labels": labels[name]}, protocol=3) for name in BATCHES}


@pytest.mark.parametrize("form", ["binary", "python"])
def test_cifar_10s_own_archives(tmp_path, form):
    images = open_images(tarball(tmp_path / f"cifar-10-{form}.tar.gz", cifar(form) | {"readme.html": b"<p>"}))
    assert (len(images), images.shape, len(images.held_out)) == (10, (3, 32, 32), 2)
    assert images.labels.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]
    assert images.held_out.labels.tolist() == [5, 4]
    # the third image is the first of data_batch_2: red at (y, x) is 32 y + x + 1, green 1,024 more, blue 2,048
    third = (images.batch([2])[0].double() + 1) * 127.5
    colour, y, x = torch.meshgrid(torch.arange(3), torch.arange(32), torch.arange(32), indexing="ij")
    torch.testing.assert_close(third, ((1024 * colour + 32 * y + x + 1) % 256).double(), rtol=0, atol=1e-4)


class Hostile:
    """Creates a file where it is unpickled without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_hostile_and_damaged_archives_of_cifar(tmp_path):
    marker = tmp_path / "executed"
    good = cifar("python")
    rows = np.zeros((2, 3072), np.uint8)
    bad = {
        "asks for": pickle.dumps({b"data": Hostile(marker), b"labels": [0, 1]}, protocol=3),
        "type of an array": pickle.dumps({b"data": rows.astype(np.float32), b"labels": [0, 1]}, protocol=3),
        "in 0 … 9": pickle.dumps({b"data": rows, b"labels": [0, 10]}, protocol=3),
        "one per label": pickle.dumps({b"data": rows, b"labels": [0]}, protocol=3),
        "not CIFAR-10's archive": good["data_batch_2"][:100],
        "'data'": pickle.dumps({}, protocol=3),
    }
    for said, content in bad.items():
        path = tarball(tmp_path / "cifar-10-python.tar.gz", good | {"data_batch_2": content})
        with pytest.raises(ValueError, match=said):
            open_images(path)
    del good["data_batch_5"]
    with pytest.raises(ValueError, match="five data_batch files"):
        open_images(tarball(tmp_path / "cifar-10-python.tar.gz", good))
    assert not marker.exists()


def test_samples_in_memory_of_any_shape(monkeypatch):
    samples = torch.randn(7, 2)
    found = array_set("mine", samples, torch.arange(7) % 3)
    assert (found.shape, found.classes, len(found)) == ((2,), 3, 7)
    assert torch.equal(found.batch([6, 0]), samples[[6, 0]])
    monkeypatch.setattr("simdistill.data.images.PART", 3)  # the last one smaller
    expected = samples.double().mean(0), samples.double().square().mean(0)
    torch.testing.assert_close(found.moments(), expected)


def test_a_damaged_entry_of_a_zip_is_named(tmp_path, pixels):
    path = zipped(tmp_path / "set.zip", {f"{k}.png": png(pixels[k]) for k in range(2)})
    content = bytearray(path.read_bytes())
    content[content.index(b"1.png") + 60] ^= 255  # within the second image, whose checksum then differs
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"set\.zip: 1\.png cannot be read"):
        open_images(path).batch([0, 1])
