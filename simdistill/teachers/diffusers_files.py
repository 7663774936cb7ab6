"""diffusers' files, configurations and weights, read from local folders by its own classes; nothing is executed."""

import re
import sys
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from simdistill.support.checks import require
from simdistill.support.json_text import read_json
from simdistill.support.libraries import library, short

_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model|model)(?:\.([^.]+?))?(?:-\d+-of-\d+)?(?:\.([^.]+))?\.(?:safetensors|bin)"
)
"""The weights of diffusers and transformers: `….fp16.safetensors`, or in shards, whose number formerly came first."""
ALIKE = 1.2  # ratio of sizes below which two variants are as full


def class_of(config: Mapping[str, Any], folder: Path, known: tuple[str, ...]) -> str:
    """The class that a configuration names; `ValueError` unless it is `known` and not quantized."""
    name = config.get("_class_name")
    require(name in known, f"{folder / 'config.json'}: _class_name", name, " or ".join(known))
    require(not config.get("quantization_config"), f"{folder}: quantization_config", "given", "absent: load it in full")
    return str(name)


def load_model(kind: str, folder: Path, unused: Collection[str] = ()) -> nn.Module:
    """diffusers' class `kind` with exactly the weights in `folder`, float32, frozen; safetensors before .bin.

    The weights may be a `variant_of`. Those named `unused` may be there, too. A .bin is read by torch's restricted
    unpickler, which builds tensors and refuses everything else. Raises `ValueError` for files that are missing,
    damaged, or of another network.
    """
    variant = variant_of(folder)
    with library() as diffusers:
        model_class = getattr(diffusers, kind)
        try:
            model, report = model_class.from_pretrained(
                str(folder),
                local_files_only=True,
                variant=variant,
                torch_dtype=torch.float32,
                # missing weights raise in accelerate's words if it is true, which these classes insist on
                low_cpu_mem_usage=model_class._keep_in_fp32_modules is not None,
                output_loading_info=True,
            )
        except Exception as error:  # whatever diffusers raises
            unbuilt = type(error) is type(_build_error(model_class, folder))
            where, whose = (folder / "config.json", "it") if unbuilt else (folder, "its weights")
            what = f"cannot be read as a {kind} ({short(error)}); download {whose} again"
            raise ValueError(f"{where}: {what}") from error
    found = {what: report[f"{what}_keys"] for what in ("missing", "unexpected", "mismatched")}
    odd = [f"{name} {what}" for what, names in found.items() for name in names if name not in unused]
    require(not odd, f"{folder}: weights", odd[:3], f"exactly those of the {kind} in its config.json")
    return model.eval().requires_grad_(False)


def _build_error(model_class: Any, folder: Path) -> Exception | None:
    """What diffusers raises where it builds a model without weights by the configuration in `folder`."""
    try:
        with torch.device("meta"):
            model_class.from_config(read_json(folder / "config.json"))
    except Exception as error:
        return error
    return None


def variant_of(folder: Path) -> str | None:
    """The variant, such as "fp16", of the fullest weights in `folder`; None for those without, which go first.

    Of several, the one that is taken is printed on stderr. Raises `ValueError` if several variants are as full, and
    there are no weights without.
    """
    sizes: Counter[tuple[str, str]] = Counter()
    for path in folder.iterdir():
        if path.is_file() and (found := _WEIGHTS.fullmatch(path.name)):
            sizes[found[1] or found[2] or "", path.suffix] += path.stat().st_size
    fullest: dict[str, int] = {}
    for (variant, _), size in sizes.items():
        fullest[variant] = max(size, fullest.get(variant, 0))
    most = max(fullest.values(), default=0)
    alike = sorted(variant for variant, size in fullest.items() if size * ALIKE >= most)
    taken = "" if "" in alike or not alike else alike[0]
    require("" in alike or len(alike) <= 1, f"{folder}: variants of its weights", alike, "one: move the others away")
    if len(fullest) > 1:
        others = ", ".join(variant or "those without a variant" for variant in sorted(fullest.keys() - {taken}))
        what = f"the variant {taken} is" if taken else "the weights without a variant are"
        print(f"{folder}: {what} read, not {others}", file=sys.stderr, flush=True)
    return taken or None
