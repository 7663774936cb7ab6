"""The reader of pickles by itself, and that of the tensors in them."""

import os
import pickle
import warnings

import pytest
import torch
from edm_files import Evil, refused, saved
from hypothesis import given, settings
from hypothesis import strategies as st

from simdistill.teachers import pickled_tensors
from simdistill.teachers.pickles import Call, Name, read_pickle

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**2000), 2**2000) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner) | st.sets(st.text()),
    max_leaves=30,
)


@settings(max_examples=60, deadline=None)
@given(VALUES, st.sampled_from([2, 3, 4, 5]))
def test_plain_values_come_out_as_they_went_in(value, protocol):
    assert read_pickle(pickle.dumps(value, protocol), []) == value


def test_a_call_is_written_down_and_not_made():
    name = f"{os.system.__module__}.system"
    found = read_pickle(pickle.dumps(Evil(os.system, "touch marker"), 4), [name])
    assert isinstance(found, Call)
    assert (found.function, found.arguments, found.state) == (name, ("touch marker",), None)
    assert read_pickle(pickle.dumps(os.system), [name]) == Name(name)


def copies(kind, length, times):
    """A pickle of protocol 2 with one value of `length`, and so many copies of it: bytes of a text, sets of a list."""
    if kind == "bytes":
        value = b"X" + length.to_bytes(4, "little") + b"a" * length + b"q\x00"
        copy = b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R"
    else:
        value = b"](" + b"".join(b"J" + k.to_bytes(4, "little") for k in range(length)) + b"eq\x00"
        copy = b"c__builtin__\nset\nh\x00\x85R"
    return b"\x80\x02](" + value + copy * times + b"e."


@pytest.mark.parametrize(("kind", "length"), [("bytes", 100_000), ("set", 2_000)])
def test_copies_are_no_longer_than_the_file(kind, length):
    """A few bytes for each copy would otherwise ask for gigabytes."""
    most = len(copies(kind, length, 1)) // length
    value, *made = read_pickle(copies(kind, length, most), [])
    assert [len(one) for one in (value, *made)] == [length] * (1 + most)
    bomb = copies(kind, length, 1000)
    assert sum(map(len, pickle.loads(bomb))) == 1001 * length  # which Python makes without a word
    assert refused(bomb) == "makes copies of its own content without end: do not trust it"


with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "TypedStorage is deprecated")
    STORAGE = saved(torch.arange(12.0).storage(), _use_new_zipfile_serialization=False)


def described(content):
    """The steps that would build a 3×4 tensor over a storage with that content."""
    storage = Call("torch.storage._load_from_bytes", (content,))
    return Call("torch._utils._rebuild_tensor_v2", (storage, 0, (3, 4), (4, 1), False, {}))


def test_a_storage_is_read_by_its_bytes():
    assert torch.equal(pickled_tensors.read_tensor("w", described(STORAGE), [3, 4]), torch.arange(12.0).reshape(3, 4))


@pytest.mark.parametrize("numbers", [11, 13, 2**31 - 1, 2**62, -1])
def test_a_storage_that_claims_another_size_is_refused(numbers):
    position = STORAGE.index(b"K\x0cN")  # twelve numbers, in the description of the storage
    claim = STORAGE[:position] + pickle.dumps(numbers, 2)[2:-1] + STORAGE[position + 2 :]
    with pytest.raises(ValueError, match="has no intact storage for the tensor w"):
        pickled_tensors.read_tensor("w", described(claim), [3, 4])


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(15, len(STORAGE) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 9),
)
def test_mutated_storages_give_a_tensor_or_a_value_error(changes, cut):
    content = bytearray(STORAGE)
    for at, byte in changes:
        content[at] = byte
    try:
        tensor = pickled_tensors.read_tensor("w", described(bytes(content[: len(content) - cut])), [3, 4])
    except ValueError:
        return
    assert (tensor.shape, tensor.dtype) == ((3, 4), torch.float32)
