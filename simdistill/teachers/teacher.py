"""What distillation needs to know of a teacher, and the ways of naming one."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from torch import nn

from simdistill.data.densities import DENSITIES
from simdistill.denoisers import Denoiser, residual
from simdistill.shapes import Data, Pictures
from simdistill.teachers.diffusers_folder import read_folder
from simdistill.teachers.edm import read_edm
from simdistill.teachers.weights import read_network
from simdistill.validation import require

SMALL = 1_000_000  # parameters below which a second thread does not pay
SHIPPED = ("digits", "fashion-mnist")
"""The trained teachers that come with the package; `simdistill/weights/README.md` tells how they were made."""


@dataclass(frozen=True)
class Teacher:
    """A frozen denoiser and its facts: all that distillation is given, for there is no data.

    `shape` is that of one sample. `classes` > 0 means that the condition is an integer label 0 … classes - 1.
    [`sigma_min`, `sigma_max`] is the range that the denoiser was trained on; the reference sampler stays inside it.
    `data` names the data set whose statistics judge the student ("digits"); without one it is judged against the
    teacher's own samples. `decode` turns samples that are latents into pictures in [-1, 1]; figures are taken of the
    latents. Raises `ValueError` for a range, a shape or a number of classes that cannot be.
    """

    denoiser: Denoiser
    shape: tuple[int, ...]
    classes: int = 0
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    name: str = "teacher"
    data: str | None = None
    decode: Callable[[Data], Pictures] | None = None

    def __post_init__(self) -> None:
        listed = isinstance(self.shape, (tuple, list))  # pyright: ignore[reportUnnecessaryIsInstance]
        require(
            listed and len(self.shape) > 0 and min(self.shape) > 0,
            "shape",
            self.shape,
            "a sample's shape, as (3, 32, 32)",
        )
        require(self.classes >= 0, "classes", self.classes, "0 (unconditional) or the number of class labels")
        require(0 < self.sigma_min < self.sigma_max, "sigma_min", self.sigma_min, "above 0 and below sigma_max")

    @property
    def trainable(self) -> nn.Module | None:
        """The denoiser as a module whose copies can be trained, or None (an exact density, a plain function)."""
        module = self.denoiser if isinstance(self.denoiser, nn.Module) else None
        return module if module is not None and any(True for _ in module.parameters()) else None

    def pictured(self, samples: Data, device: torch.device | str = "cpu") -> Pictures:
        """`samples` as they are, or if they are latents the pictures that they stand for, decoded on `device`."""
        return samples if self.decode is None else self.decode(samples.to(device)).cpu()

    def check(self, device: torch.device | str = "cpu") -> None:
        """Put the denoiser on `device`, in eval mode and frozen, and call it once.

        Raises `ValueError` unless it takes its shape and returns it, float32, finite, and open to gradients.
        """
        if isinstance(self.denoiser, nn.Module):  # eval: without dropout
            self.denoiser.to(device).eval().requires_grad_(False)
        x_t = torch.zeros(2, *self.shape, device=device, requires_grad=True)
        sigma = torch.tensor([0.5, 1.0], device=device)
        labels = torch.zeros(2, dtype=torch.int64, device=device) if self.classes else None
        try:
            difference = residual(self.denoiser, x_t, sigma, labels)
            open_to_gradients = self.denoiser(x_t, sigma, labels).requires_grad
        except ValueError:
            raise
        except Exception as error:  # whatever the user's own code raises
            raise ValueError(
                f"teacher {self.name!r}: fails on x_t of shape {list(x_t.shape)}, sigma of shape [2] and "
                f"{'labels of shape [2]' if self.classes else 'no labels'} ({type(error).__name__}: {error}); "
                "check its shape and classes"
            ) from error
        require(open_to_gradients, "denoiser output", "cut off from x_t", "differentiable: no no_grad(), no detach()")
        finite = bool(torch.isfinite(difference).all())
        require(finite, "denoiser output", "not finite", "finite; is the network loaded?")
        require(
            difference.dtype == torch.float32, "denoiser output", difference.dtype, "float32; convert it with .float()"
        )


def load_teacher(name: str) -> Teacher:
    """The teacher of that name: one of `SHIPPED` or `DENSITIES` (exact), a file, a folder or module:function.

    A file is a .safetensors of this package or a .pkl of EDM's, a folder one of diffusers' (see `read_folder`); nothing
    in them is executed. `package.module:function` is imported and called without arguments; it returns a `Teacher`.
    Raises `ValueError` with the remedy if there is no such teacher, or if what is named gives something else.
    """
    if name in SHIPPED:
        with as_file(files("simdistill") / "weights" / f"{name}-teacher.safetensors") as path:
            return replace(_from_file(path), name=name)
    if name in DENSITIES:
        mixture = DENSITIES[name]()
        return Teacher(mixture, mixture.shape, name=name)
    if _is_file(name):
        return _from_file(Path(name))
    if Path(name).is_dir():
        return _from_folder(Path(name))
    others = 'a .safetensors or .pkl file, a diffusers folder, or "package.module:function"'
    known = ", ".join((*SHIPPED, *DENSITIES, others))
    require(":" in name, "teacher", name, known)
    return _from_function(name)


def _is_file(name: str) -> bool:
    """Whether a teacher's name is that of a file."""
    return name.endswith((".safetensors", ".pkl"))


def is_code(name: str) -> bool:
    """Whether a teacher's name is package.module:function, which only the user may have run."""
    return ":" in name and not _is_file(name) and not Path(name).is_dir()


def _from_file(path: Path) -> Teacher:
    denoiser, facts = (read_edm(path), {}) if path.suffix == ".pkl" else read_network(path)
    return Teacher(
        denoiser,
        denoiser.shape,
        denoiser.classes,
        denoiser.sigma_min,
        denoiser.sigma_max,
        name=str(path.resolve()),
        data=facts.get("data"),
    )


def _from_folder(path: Path) -> Teacher:
    denoiser, facts = read_folder(path)
    return Teacher(denoiser, name=str(path.resolve()), **facts)


def _from_function(name: str) -> Teacher:
    module, _, function = name.partition(":")
    try:
        found: Any = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"teacher = {name!r}: {error}; is the module on PYTHONPATH?") from error
    try:
        teacher = found()
    except Exception as error:  # whatever the user's own code raises
        raise ValueError(f"teacher = {name!r}: calling it failed ({type(error).__name__}: {error})") from error
    if not isinstance(teacher, Teacher):
        raise ValueError(  # noqa: TRY004  (what the user named is wrong)
            f"teacher = {name!r}: must return a simdistill.teachers.teacher.Teacher, not {type(teacher).__name__}"
        )
    return replace(teacher, name=name)
