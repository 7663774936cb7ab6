"""Files of tensors: read without executing anything in them, and loaded into networks strictly."""

import re
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from simdistill.support.checks import require
from simdistill.support.files import digest
from simdistill.support.torch_files import load_torch

LARGEST_HEADER = 2**24  # bytes
Network = TypeVar("Network", bound=nn.Module)


def read_tensors(path: Path, beginning: str = "") -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors whose names have that beginning, and the metadata, of a safetensors file.

    Raises `ValueError` if it is missing or damaged.
    """
    with _opened(path) as file:
        names = [name for name in [*file.keys()] if name.startswith(beginning)]
        return {name: file.get_tensor(name) for name in names}, file.metadata() or {}


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, without its tensors; `ValueError` if it is missing or damaged."""
    with _opened(path) as file:
        return file.metadata() or {}


def read_names(path: Path) -> list[str]:
    """The names of the tensors in a safetensors file, without reading them; `ValueError` as above."""
    with _opened(path) as file:
        return [*file.keys()]


def check_header(path: Path) -> None:
    """Raise `ValueError` if a safetensors file is missing, or names so many tensors that reading them would hang."""
    _check_there(path)
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    bounded = size <= LARGEST_HEADER or size > path.stat().st_size  # the latter is no header at all
    require(bounded, f"{path}: bytes of its header", size, f"at most {LARGEST_HEADER:,}, as of 100,000 tensors")


@contextmanager
def _opened(path: Path) -> Generator[Any]:
    check_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        remedy = "download it again, or repeat the run that wrote it"
        raise ValueError(f"{path}: not a valid safetensors file ({what}); {remedy}") from error


def read_content(path: Path, device: str = "cpu") -> Any:
    """The content of a .safetensors or `torch.save` file that holds only tensors and plain values.

    The tensors of the latter are on `device`; on "meta", they are not read. Nothing is executed: torch's restricted
    unpickler refuses everything else. Raises `ValueError` if the file is missing, damaged, or holds anything else.
    """
    if path.suffix == ".safetensors":
        return read_tensors(path)[0]
    _check_there(path)
    try:
        return load_torch(path, device)
    except Exception as error:  # torch.load documents no types, and its message advises to execute the file
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        why = str(error) if isinstance(error, ValueError) else type(error).__name__
        what = f"damaged, or without tensors ({why}); download it again"
        if asked:
            what = f"asks for {asked[1]!r}, which weights do not need: do not trust it; nothing in it was executed"
        raise ValueError(f"{path}: {what}") from error


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in such a file (or under its key "state_dict"); `ValueError` if it holds anything else."""
    content = read_content(path)
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    named = isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values())
    require(named, f"{path}: content", type(state).__name__, "a state dict: tensors by name")
    return state


def check_names(found: Collection[str], wanted: Collection[str], where: Path | str, whose: str) -> None:
    """Raise `ValueError` unless the names `found` in `where` are those `wanted` by the network `whose`."""
    odd = {"missing": {*wanted} - {*found}, "unknown": {*found} - {*wanted}}
    said = [
        f"{len(names)} {'tensor is' if len(names) == 1 else 'tensors are'} {what}, such as {min(names)}"
        for what, names in odd.items()
        if names
    ]
    if said:
        raise ValueError(f"{where}: {'; '.join(said)}; must be those of {whose}")


def check_tensors(
    found: Mapping[str, Tensor], wanted: Mapping[str, Sequence[int]], where: Path | str, whose: str
) -> None:
    """Raise `ValueError` unless the tensors `found` in `where` have the names and shapes of those `wanted`."""
    check_names(found.keys(), wanted.keys(), where, whose)
    for name, shape in wanted.items():
        own = [*found[name].shape]
        require(own == [*shape], f"{where}: shape of {name}", own, f"{[*shape]}, as in {whose}")


def fill(
    network: Network,
    state: Mapping[str, Tensor],
    where: Path | str,
    whose: str,
    left_out: Collection[str] = (),
) -> Network:
    """`network` with exactly the tensors of `state`, read from `where`, in eval mode and frozen.

    The network's tensors in `left_out` are unchanged. A network on the meta device takes the tensors themselves.
    Raises `ValueError`, and changes nothing, unless names and shapes match the network, called `whose` in messages.
    """
    own = network.state_dict()
    check_names({*state, *left_out}, own.keys(), where, whose)
    check_tensors(state, {name: t.shape for name, t in own.items() if name not in left_out}, where, whose)
    without_memory = any(tensor.is_meta for tensor in own.values())
    network.load_state_dict(state, strict=False, assign=without_memory)  # strictness was checked above
    return network.eval().requires_grad_(False)


def fingerprint(paths: Iterable[Path]) -> str:
    """The first eight hexadecimal digits of the files' SHA-256, as in the names of PyTorch's files."""
    return digest(*paths)[:8]


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
