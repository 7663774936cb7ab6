"""Distil a pre-trained diffusion or flow model into a generator of one or a few network evaluations, without data.

    import simdistill
    student = simdistill.load_generator("fashion-mnist")   # a run's folder, a .safetensors, or a shipped name
    images = student.sample(seeds=range(64), labels=3)     # [64, 1, 32, 32] in [-1, 1]

Names are loaded when they are asked for: the import itself is quick, and starts no torch.
"""

# pyright: reportUnsupportedDunderAll=false
# The types of these names are in __init__.pyi.

from importlib import import_module
from typing import Any

__all__ = [
    "Recipe",
    "Student",
    "Teacher",
    "__version__",
    "auto_recipe",
    "distill",
    "evaluate",
    "load_generator",
    "load_recipe",
    "load_teacher",
    "sample",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("simdistill")
    if name not in __all__:
        raise AttributeError(f"module 'simdistill' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module("simdistill.api"), name)


def __dir__() -> list[str]:
    return __all__
