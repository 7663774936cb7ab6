"""The settings of EDM's checkpoints: classes by name, their settings and defaults, each setting checked."""

import math
import struct
from collections.abc import Callable
from inspect import signature
from typing import Any, TypeAlias, TypeVar, get_type_hints

from simdistill.config.settings import convert
from simdistill.method.preconditioning import EDMScaling, IDDPMScaling, Scaling, VEScaling, VPScaling
from simdistill.networks.unet import DhariwalUNet, SongUNet
from simdistill.support.checks import require
from simdistill.teachers.pickles import Call

SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
"""NumPy's scalars in a pickle, before and since version 2."""

Result = TypeVar("Result")
Range: TypeAlias = tuple[float, float]


def _edm(sigma_min: float = 0, sigma_max: float = math.inf, sigma_data: float = 0.5) -> tuple[Scaling, Range]:
    return EDMScaling(sigma_data), (sigma_min, sigma_max)


def _vp(beta_d: float = 19.9, beta_min: float = 0.1, M: int = 1000, epsilon_t: float = 1e-5) -> tuple[Scaling, Range]:
    scaling = VPScaling(beta_d, beta_min, M)
    return scaling, (scaling.sigma(epsilon_t), scaling.sigma(1))


def _ve(sigma_min: float = 0.02, sigma_max: float = 100) -> tuple[Scaling, Range]:
    return VEScaling(), (sigma_min, sigma_max)


def _iddpm(C_1: float = 0.001, C_2: float = 0.008, M: int = 1000) -> tuple[Scaling, Range]:
    scaling = IDDPMScaling(C_1, C_2, M)
    return scaling, (scaling.levels[-1].item(), scaling.levels[0].item())


PRECONDITIONINGS: dict[str, Callable[..., tuple[Scaling, Range]]] = {
    "EDMPrecond": _edm,
    "VPPrecond": _vp,
    "VEPrecond": _ve,
    "iDDPMPrecond": _iddpm,
}
"""EDM's classes by name: their settings and defaults, their scaling, and the noise levels they were trained on."""
NETWORKS: dict[str, type[SongUNet] | type[DhariwalUNet]] = {"SongUNet": SongUNet, "DhariwalUNet": DhariwalUNet}


def build(kind: str, function: Callable[..., Result], settings: dict[str, Any]) -> Result:
    """`function(**settings)`, with each setting checked first; `ValueError` for an unknown or impossible one."""
    kinds = get_type_hints(function.__init__ if isinstance(function, type) else function)
    known = signature(function).parameters
    for name in settings:
        require(name in known, f"setting of {kind}", name, f"one that this package knows: {', '.join(known)}")
    values = {name: convert(value, kinds[name]) for name, value in settings.items()}
    for name, value in values.items():
        _check_size(name, value)
    try:
        return function(**values)
    except (TypeError, RuntimeError, OverflowError, ZeroDivisionError) as error:
        raise ValueError(f"has impossible settings of {kind} ({error}); name another file") from error


def _check_size(name: str, value: Any) -> None:
    """Keep a file from asking for a network that takes forever to build."""
    if isinstance(value, (list, tuple)):
        require(len(value) <= 16, name, f"{len(value)} numbers", "at most 16 numbers")
    for number in value if isinstance(value, (list, tuple)) else [value]:
        most = 64 if name == "num_blocks" else 2**16
        sound = not isinstance(number, (int, float)) or number == math.inf or -1 <= number <= most
        require(sound, name, value, f"at most {most:,}")


def plain_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Pickled settings as numbers, strings and lists of them."""
    listed = (list, tuple)
    return {
        name: [plain(one) for one in value] if isinstance(value, listed) else plain(value)
        for name, value in settings.items()
    }


def plain(value: Any) -> Any:
    """A number or a string; NumPy's scalars are calls with the bytes of the number."""
    if isinstance(value, Call) and value.function in SCALARS:
        formats = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i"}
        try:
            dtype, content = value.arguments
            return struct.unpack(formats[dtype.arguments[0]], content)[0]
        except (struct.error, AttributeError, LookupError, TypeError, ValueError) as error:
            raise ValueError("has a NumPy number of an unknown kind for a setting; name another file") from error
    if not (value is None or isinstance(value, (bool, int, float, str))):
        raise ValueError(f"has a {type(value).__name__} for a setting, where numbers and strings are expected")
    return value
