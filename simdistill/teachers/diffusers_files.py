"""diffusers' files, configurations and weights, read from local folders by its own classes; nothing is executed."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from simdistill.support.checks import require
from simdistill.support.libraries import library, short


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; `ValueError` if there is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as JSON ({short(error)})") from error
    require(isinstance(values, dict), str(path), values, "a JSON object")
    return values


def class_of(config: Mapping[str, Any], folder: Path, known: tuple[str, ...]) -> str:
    """The class that a configuration names; `ValueError` unless it is `known` and not quantized."""
    name = config.get("_class_name")
    require(name in known, f"{folder / 'config.json'}: _class_name", name, " or ".join(known))
    require(not config.get("quantization_config"), f"{folder}: quantization_config", "given", "absent: load it in full")
    return str(name)


def load_model(kind: str, folder: Path, unused: Collection[str] = ()) -> nn.Module:
    """diffusers' class `kind` with exactly the weights in `folder`, float32, frozen; safetensors before .bin.

    Weights named `unused` may be there, too. A .bin is read by torch's restricted unpickler, which builds
    tensors and refuses everything else. Raises `ValueError` for files that are missing, damaged, or of another network.
    """
    with library() as diffusers:
        try:
            model_class = getattr(diffusers, kind)
            model, report = model_class.from_pretrained(
                str(folder),
                local_files_only=True,
                torch_dtype=torch.float32,
                # missing weights raise in accelerate's words if it is true, which these classes insist on
                low_cpu_mem_usage=model_class._keep_in_fp32_modules is not None,
                output_loading_info=True,
            )
        except Exception as error:  # whatever diffusers raises
            raise ValueError(f"{folder}: cannot be read as a {kind} ({short(error)})") from error
    found = {what: report[f"{what}_keys"] for what in ("missing", "unexpected", "mismatched")}
    odd = [f"{name} {what}" for what, names in found.items() for name in names if name not in unused]
    require(not odd, f"{folder}: weights", odd[:3], f"exactly those of the {kind} in its config.json")
    return model.eval().requires_grad_(False)
