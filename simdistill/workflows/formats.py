"""The export formats of generators: how a file is written, and how samples are drawn from it."""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from textwrap import shorten
from typing import Any, TypeAlias

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from simdistill.method.denoisers import Preconditioned
from simdistill.method.generator import Generator
from simdistill.method.shapes import Data, Rows
from simdistill.support.checks import require
from simdistill.support.tensors import read_tensors
from simdistill.teachers.families import DiffusersNetwork
from simdistill.teachers.weights import NETWORKS

About: TypeAlias = dict[str, Any]
Sampler: TypeAlias = Callable[[Data, Rows], Data]

KEY = "generator"  # metadata key of the description (JSON)
FORMULA = "samples = c_skip z + b_skip + c_out F(c_in z + b_in, time, labels), with F's first channels, as many as in z"
PROTOBUF_LIMIT = 2 * 10**9  # bytes


@dataclass(frozen=True)
class Format:
    """`write(generator, about, path)` returns additions to the description; `read(generator, path)` a sampler."""

    suffix: str
    write: Callable[[Generator, About, Path], About]
    read: Callable[[Generator, Path], Sampler]


# ---- safetensors: F's weights by the names of its library, and the coefficients of the formula


def _write_safetensors(generator: Generator, about: About, path: Path) -> About:
    network, described = _network(generator.denoiser)
    more: About = {"network": described}
    if network is not generator.denoiser:
        one = "1: the file's formula has one step; use onnx or torch-export, which store the whole program"
        require(len(generator.levels) == 1, "--to safetensors: steps", len(generator.levels), one)
        more |= {"formula": FORMULA, **_scalings(generator, about)}
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in _weights(network).state_dict().items()}
    save_file(state, path, {KEY: json.dumps(about | more)})
    return more


def _read_safetensors(generator: Generator, path: Path) -> Sampler:
    tensors, metadata = read_tensors(path)
    about = json.loads(metadata[KEY])
    network, described = _network(copy.deepcopy(generator.denoiser))
    _weights(network).load_state_dict(tensors)

    def sampler(z: Data, labels: Rows) -> Data:
        if "formula" not in about:
            return Generator(network, about["levels"])(z, labels)
        if labels is not None and described["labels"] == "one-hot":
            labels = torch.eye(about["classes"])[labels]
        f = network(about["c_in"] * z + about["b_in"], torch.full((len(z),), about["time"]), labels)
        return about["c_skip"] * z + about["b_skip"] + about["c_out"] * f[:, : z.shape[1]]

    return sampler


def _network(denoiser: nn.Module) -> tuple[nn.Module, About]:
    """The network F inside a denoiser, with its description; the denoiser itself if it is the user's code."""
    inner: Any = getattr(denoiser, "network", None)
    if isinstance(inner, DiffusersNetwork):
        theirs: Any = inner.model
        config: dict[str, Any] = {name: value for name, value in theirs.config.items() if not name.startswith("_")}
        return inner, {"class": f"diffusers.{type(theirs).__name__}", "config": config, "labels": "integers"}
    model: Any = denoiser.model if isinstance(denoiser, Preconditioned) else None
    if isinstance(model, NETWORKS):
        return model, {"class": type(model).__name__, "arguments": model.arguments, "labels": "one-hot"}
    return denoiser, {"class": type(denoiser).__name__, "labels": "integers"}


def _weights(network: nn.Module) -> nn.Module:
    return network.model if isinstance(network, DiffusersNetwork) else network


@torch.no_grad()
def _scalings(generator: Generator, about: About) -> About:
    """The formula's coefficients, measured on a generator whose input and network output are constant 0 or 1."""
    network, _ = _network(generator.denoiser)
    labels = torch.zeros(1, dtype=torch.int64) if about["classes"] else None
    asked: list[tuple[float, int | float]] = []

    def sample(z: float, answer: float) -> float:
        def note_and_answer(_module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
            asked.append((arguments[0].flatten()[0].item(), arguments[1][0].item()))
            return torch.full_like(output, answer)

        handle = network.register_forward_hook(note_and_answer)
        try:
            return float(generator(torch.full((1, *about["shape"]), z), labels).flatten()[0])
        finally:
            handle.remove()

    nothing, input_alone, answer_alone = sample(0.0, 0.0), sample(1.0, 0.0), sample(0.0, 1.0)
    (b_in, time), (state, _), _ = asked
    around = {"c_skip": input_alone - nothing, "b_skip": nothing, "c_out": answer_alone - nothing}
    return {**around, "c_in": state - b_in, "b_in": b_in, "time": time}


# ---- programs: the whole generator, with constant levels


def _program(generator: Generator, about: About) -> ExportedProgram:
    """The generator as a graph of torch operators, for any batch size."""
    z, labels = torch.zeros(2, *about["shape"]), torch.zeros(2, dtype=torch.int64)
    try:
        program = _traced(generator.requires_grad_(False), (z, labels) if about["classes"] else (z,))
    except Exception as error:  # torch.export documents no error types
        reason = shorten(f"{type(error).__name__}: {error}", 300)
        raise ValueError(f"torch.export cannot trace this network ({reason}); use --to safetensors") from error
    # diffusers' U-Nets copy their hidden states from 64 samples on, from which torch infers a bound on the batch size.
    # It does not hold: samples do not depend on their batch, so the graph of a small batch is right for all.
    (any_size,) = _traced(nn.Identity(), (z,)).range_constraints.values()
    program.range_constraints.update(dict.fromkeys(program.range_constraints, any_size))
    guarded: Any = program
    guarded._guards_code = [guard for guard in guarded._guards_code if "==" in guard]
    return program


def _traced(module: nn.Module, inputs: tuple[Tensor, ...]) -> ExportedProgram:
    return torch.export.export(module, inputs, dynamic_shapes=tuple({0: Dim.DYNAMIC} for _ in inputs))


def _write_torch_export(generator: Generator, about: About, path: Path) -> About:
    with path.open("wb") as file:
        torch.export.save(_program(generator, about), file, extra_files={f"{KEY}.json": json.dumps(about)})
    return {}


def _read_torch_export(generator: Generator, path: Path) -> Sampler:
    with path.open("rb") as file:
        program: Any = torch.export.load(file).module()
    return lambda z, labels: program(z) if labels is None else program(z, labels)


def _write_onnx(generator: Generator, about: About, path: Path) -> About:
    for library in ("onnx", "onnxscript", "onnxruntime"):
        try:
            import_module(library)
        except ImportError as error:
            raise ValueError(f'--to onnx: {library} is missing; pip install "simdistill[onnx]"') from error
    size = sum(p.numel() * p.element_size() for p in generator.parameters())
    require(size < PROTOBUF_LIMIT, "--to onnx: bytes of the weights", size, "below 2 GB; use --to torch-export")
    names = ["z", "labels"] if about["classes"] else ["z"]
    program: Any = torch.onnx.export(
        _program(generator, about), input_names=names, output_names=["samples"], verbose=False, external_data=False
    )
    program.model.metadata_props[KEY] = json.dumps(about)
    program.save(path, external_data=False)
    return {}


def _read_onnx(generator: Generator, path: Path) -> Sampler:
    runtime: Any = import_module("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def sampler(z: Data, labels: Rows) -> Data:
        inputs = {"z": z.numpy()} | ({} if labels is None else {"labels": labels.numpy()})
        return torch.from_numpy(session.run(None, inputs)[0])

    return sampler


FORMATS: dict[str, Format] = {
    "safetensors": Format(".safetensors", _write_safetensors, _read_safetensors),
    "onnx": Format(".onnx", _write_onnx, _read_onnx),
    "torch-export": Format(".pt2", _write_torch_export, _read_torch_export),
}
