"""Files of tensors: two formats, nothing run, and whole or not at all."""

import hashlib
import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from simdistill.support.files import digest
from simdistill.support.tensors import check_names, fill, fingerprint, read_metadata, read_state

STATE = {"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor([3.0])}


@pytest.mark.parametrize(
    "content", [STATE, {"state_dict": STATE, "epoch": 3}, STATE | {"weight": STATE["weight"].half()}]
)
def test_tensors_of_torch(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    layer = fill(nn.Linear(2, 1), read_state(tmp_path / "w.pth"), tmp_path, "a layer")
    assert layer(torch.tensor([[10.0, 100.0]])).item() == 213.0
    assert not any(p.requires_grad for p in layer.parameters())


def test_tensors_of_safetensors(tmp_path):
    save_file(STATE, tmp_path / "w.safetensors", {"key": "value"})
    assert read_metadata(tmp_path / "w.safetensors") == {"key": "value"}
    assert {name: tensor.tolist() for name, tensor in read_state(tmp_path / "w.safetensors").items()} == {
        "weight": [[1.0, 2.0]],
        "bias": [3.0],
    }


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("it-ran",)


@pytest.mark.parametrize(
    ("suffix", "message"),
    [
        (".pt", r"w.pt: asks for '\w+.mkdir', which weights do not need"),
        (".safetensors", "not a valid safetensors file"),
    ],
)
def test_nothing_is_run(tmp_path, monkeypatch, suffix, message):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Hostile()}, tmp_path / f"w{suffix}")
    with pytest.raises(ValueError, match=message):
        read_state(tmp_path / f"w{suffix}")
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [([1.0], "content = 'list': must be a state dict"), ({"weight": 1.0}, "content = 'dict': must be a state dict")],
)
def test_other_contents_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=message):
        read_state(tmp_path / "w.pt")


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(ValueError, match=r"w.pt: no such file"):
        read_state(tmp_path / "w.pt")
    torch.save(STATE, tmp_path / "w.pt")
    (tmp_path / "w.pt").write_bytes((tmp_path / "w.pt").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"w.pt: damaged, or without tensors .*; download it again"):
        read_state(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"weight": STATE["weight"]}, "f.pt: 1 tensor is missing, such as bias; must be those of a layer"),
        (STATE | {"more": torch.zeros(1)}, "f.pt: 1 tensor is unknown, such as more; must be those of a layer"),
        (STATE | {"bias": torch.zeros(2)}, r"f.pt: shape of bias = \[2\]: must be \[1\], as in a layer"),
    ],
)
def test_whole_or_not_at_all(tmp_path, state, message):
    layer = nn.Linear(2, 1)
    before = layer.weight.clone()
    with pytest.raises(ValueError, match=message):
        fill(layer, state, tmp_path / "f.pt", "a layer")
    assert torch.equal(layer.weight, before)


def test_several_tensors_are_counted_and_the_first_named():
    with pytest.raises(ValueError, match="file: 2 tensors are missing, such as b; 1 tensor is unknown, such as a"):
        check_names(["a", "d"], ["d", "c", "b"], "file", "a layer")


def test_some_tensors_are_left_as_they_are(tmp_path):
    layer = nn.Linear(2, 1)
    before = layer.weight.clone()
    assert fill(layer, {"bias": STATE["bias"]}, tmp_path, "a layer", {"weight"}) is layer
    assert torch.equal(layer.weight, before)
    assert layer.bias.tolist() == [3.0]
    for state, left_out, message in [
        (STATE, {"weight"}, "1 tensor is unknown, such as weight"),
        ({"bias": STATE["bias"]}, {"weight", "more"}, "1 tensor is unknown, such as more"),
        ({}, {"weight"}, "1 tensor is missing, such as bias"),
        ({"bias": torch.zeros(2)}, {"weight"}, r"shape of bias = \[2\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            fill(layer, state, tmp_path, "a layer", left_out)
    assert layer.bias.tolist() == [3.0]


def test_a_network_without_memory_takes_the_tensors_themselves(tmp_path):
    with torch.device("meta"):
        layer = nn.Linear(2, 1)
    assert fill(layer, STATE, tmp_path, "a layer").weight.data_ptr() == STATE["weight"].data_ptr()


def test_the_fingerprint_is_of_all_bytes(tmp_path):
    for name, content in (("a", b"one"), ("b", b"two")):
        (tmp_path / name).write_bytes(content)
    assert digest(tmp_path / "a") == hashlib.sha256(b"one").hexdigest()
    assert fingerprint([tmp_path / "a", tmp_path / "b"]) == hashlib.sha256(b"onetwo").hexdigest()[:8]
