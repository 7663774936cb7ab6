"""Tensors in a plain pickle: a view of a storage, and the storage as bytes from torch.save."""

import pickle
from io import BytesIO
from pickletools import genops
from typing import Any

import torch
from torch import Tensor

from simdistill.support.checks import require
from simdistill.teachers.pickles import Call

_PARAMETER, _TENSOR = "torch._utils._rebuild_parameter", "torch._utils._rebuild_tensor_v2"
_STORAGE = "torch.storage._load_from_bytes"
TENSOR_NAMES = (_PARAMETER, _TENSOR, _STORAGE)
"""What a pickle calls to build tensors; `read_tensor` replaces them."""

# What torch.save writes without its zip format: five pickles, a storage's length, its numbers.
_MAGIC = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)
_HEADER_BYTES, _HEADER_STEPS = 4096, 100


def read_tensor(name: str, found: Any, shape: list[int]) -> Tensor:
    """The float32 tensor that `found`, a `Call`, describes; it must have `shape`.

    torch's own functions would enlarge a storage that is too small, and would run any code in a storage's pickle; here
    a view must fit, and bytes are read by `torch.load` with `weights_only`. Raises `ValueError`.
    """
    if isinstance(found, Call) and found.function == _PARAMETER and found.arguments:
        found = found.arguments[0]
    if not (isinstance(found, Call) and found.function == _TENSOR and len(found.arguments) >= 4):
        raise ValueError(f"has something else where the tensor {name} is expected; name a checkpoint of EDM")
    storage, offset, size, stride = found.arguments[:4]
    if not (_whole(offset) and _all_whole(size) and _all_whole(stride) and len(size) == len(stride)):
        raise ValueError(f"has a tensor {name} without a valid shape; download it again")
    require([*size] == shape, f"shape of {name}", [*size], f"{shape}, as its settings say; download it again")
    if not (isinstance(storage, Call) and storage.function == _STORAGE and len(storage.arguments) == 1):
        raise ValueError(f"has a tensor {name} without a storage; download it again")
    numbers = _read_storage(name, storage.arguments[0], torch.Size(shape).numel())
    try:
        view = numbers.as_strided(size, stride, offset)
    except RuntimeError as error:
        held = f"only {numbers.numel()} numbers"
        raise ValueError(f"has {held} for the tensor {name} of shape {shape}; download it again") from error
    return view.to(torch.float32, copy=True, memory_format=torch.contiguous_format)


def _read_storage(name: str, data: Any, count: int) -> Tensor:
    """The numbers of a storage of about `count` numbers."""
    if not (isinstance(data, bytes) and data.startswith(_MAGIC) and len(data) <= _HEADER_BYTES + 8 * count):
        raise ValueError(f"has a storage of an unknown format or size for the tensor {name}; download it again")
    try:
        _check_header(BytesIO(data))
        storage = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
        if not isinstance(storage, torch.storage.TypedStorage):
            raise TypeError(f"a {type(storage).__name__}, not a storage")  # noqa: TRY301
        numbers = torch.empty(0, dtype=storage.dtype).set_(storage)
    except Exception as error:  # torch.load promises no kinds
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"has no intact storage for the tensor {name} ({reason}); download it again") from error
    require(numbers.is_floating_point(), f"type of {name}", str(numbers.dtype), "a floating-point type")
    return numbers


def _check_header(stream: BytesIO) -> None:
    """Reject a header so long that reading it would be a denial-of-service attack."""
    for _ in range(5):
        for count, _ in enumerate(genops(stream)):
            require(count < _HEADER_STEPS, "steps of a storage's header", count, f"below {_HEADER_STEPS}")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < 2**62


def _all_whole(values: Any) -> bool:
    return isinstance(values, tuple) and all(map(_whole, values))
