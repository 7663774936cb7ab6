"""torch's files are read as torch reads them, and hostile ones are refused before they cost anything."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict

import pytest
import torch

from simdistill.support.pickle_steps import MOST_LARGE, check_steps
from simdistill.support.tensors import read_content
from simdistill.support.torch_files import load_torch

CONTENT = {
    "weights": OrderedDict(a=torch.arange(6.0).reshape(2, 3), b=torch.ones(2, dtype=torch.float16)),
    "view": torch.arange(10)[2:6:2],
    "step": 7,
    "names": ["x", None, 2.5, (1, True)],
    "parameter": torch.nn.Parameter(torch.zeros(3)),
}
PRIME = 2**61 - 1  # Python's hash of an integer is its remainder


@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_saves_comes_back(tmp_path, zipped):
    path = tmp_path / "x.pt"
    torch.save(CONTENT, path, _use_new_zipfile_serialization=zipped)
    found = load_torch(path)
    torch.testing.assert_close(found["weights"], CONTENT["weights"])
    torch.testing.assert_close(found["view"], CONTENT["view"])
    assert (found["step"], found["names"]) == (7, CONTENT["names"])
    on_meta = load_torch(path, "meta")
    assert on_meta["weights"]["a"].is_meta
    assert on_meta["weights"]["a"].shape == (2, 3)


def replaced(path, new, name="archive/data.pkl", compression=zipfile.ZIP_STORED):
    """A torch file with another pickle, or another compression."""
    source = io.BytesIO()
    torch.save({"a": torch.ones(4)}, source)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", compression) as archive:
        for entry in old.infolist():
            archive.writestr(entry.filename, new if new and entry.filename == name else old.read(entry))


def long_memo():
    return b"\x80\x02}r" + struct.pack("<I", 2**28) + b"."


def colliding(count):
    return pickle.dumps({k * PRIME: 0 for k in range(1, count)}, protocol=2)


def enlarged():
    """A view of 2⁴⁰ numbers of a storage of 4."""
    source = io.BytesIO()
    torch.save({"a": torch.ones(4)}, source)
    with zipfile.ZipFile(source) as archive:
        content = archive.read("archive/data.pkl")
    found = content.replace(b"K\x04\x85", b"\x8a\x06" + (2**40).to_bytes(6, "little") + b"\x85", 1)
    assert found != content
    return found


@pytest.mark.parametrize(
    ("content", "compression", "said"),
    [
        (None, zipfile.ZIP_DEFLATED, "is compressed"),
        (long_memo(), zipfile.ZIP_STORED, "268435456 in its memo"),
        (colliding(5000), zipfile.ZIP_STORED, "more than 1,000 integers"),
        (enlarged(), zipfile.ZIP_STORED, "would take 4,398,046,511,104 bytes"),
        (
            b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x40\x85R.",
            zipfile.ZIP_STORED,
            "asks for a bytearray",
        ),
        (b"\x80\x02" + b"N0" * 600_000 + b"N.", zipfile.ZIP_STORED, "more than 1,000,000 steps"),
        (b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"x.", zipfile.ZIP_STORED, "bytes"),
    ],
    ids=["compressed", "memo", "hashes", "enlarged", "bytearray", "steps", "length"],
)
def test_what_would_cost_is_refused_first(tmp_path, content, compression, said):
    path = tmp_path / "x.pt"
    replaced(path, content, compression=compression)
    with pytest.raises(ValueError, match=said):
        load_torch(path)
    with pytest.raises(ValueError, match=r"x\.pt: damaged, or without tensors .*download it again"):
        read_content(path)


def test_a_storage_that_is_a_little_smaller_than_its_tensor_is_no_matter_of_memory(tmp_path):
    """What torch itself allows within the file's size is left to torch."""
    path = tmp_path / "x.pt"
    torch.save({"a": torch.ones(1000)[::2], "again": torch.ones(1000)}, path)
    assert load_torch(path)["a"].shape == (500,)


def test_other_files_are_no_files_of_torch(tmp_path):
    path = tmp_path / "x.pt"
    for content in (b"", b"hello", b"\x1f\x8b\x08", b"\x80\x02."):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.pt"):
            read_content(path)


def test_few_large_integers_are_read():
    for data in (colliding(MOST_LARGE // 2), pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)):
        check_steps(io.BytesIO(data), len(data))
