"""Optional libraries, imported on demand."""

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from textwrap import shorten
from typing import Any


@contextmanager
def library() -> Generator[Any]:
    """diffusers, imported on demand (it takes seconds), without its log messages and transformers'."""
    try:
        diffusers: Any = import_module("diffusers")
        logs: list[Any] = [diffusers.utils.logging, import_module("transformers.utils.logging")]
    except ImportError as error:
        raise ValueError('diffusers or transformers is missing: pip install "simdistill[diffusers]"') from error
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
