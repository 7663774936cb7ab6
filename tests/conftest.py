"""Every test runs on one thread and with each annotated shape of the package checked at run time."""

import shutil

import pytest
import torch
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook


def checked(thing):
    """Beartype, as PEP 484 reads annotations: an int is a float."""
    return beartype(conf=BeartypeConf(is_pep484_tower=True))(thing)


# The hook rewrites the modules that are imported from here on, so it stands before the first import of the package.
install_import_hook("simdistill", "conftest.checked")

torch.set_num_threads(1)

LONGEST = ("test_footprint", "test_end_to_end")


def pytest_collection_modifyitems(items):
    """The tests of minutes first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def refused(capsys):
    """What the command line says of words that it refuses: one line on stderr, nothing on stdout, exit code 2."""
    from simdistill.cli import main

    def error(*words):
        assert main([str(word) for word in words]) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert len(shown.err.splitlines()) == 1
        return shown.err

    return error


@pytest.fixture
def coarse(monkeypatch):
    """Runs are measured with few samples, unless they are asked for: their figures are not the point."""
    from simdistill.workflows import budget, evaluating

    monkeypatch.setattr(budget, "LADDER", (budget.Fineness(20, 2, 16, 20, 1),))
    monkeypatch.setattr(evaluating, "PICTURED", 10)


# ---- runs that are logged


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    from logged import offline_in

    with offline_in(tmp_path_factory.mktemp("home")) as home:
        yield home


@pytest.fixture
def run(tmp_path):
    from logged import CONFIG

    from simdistill.runs.folder import RunFolder

    return RunFolder.create(tmp_path / "digits", CONFIG)


@pytest.fixture
def png(run):
    from logged import picture_of

    return picture_of(run)


# ---- folders of diffusers', to be read or copied


@pytest.fixture(scope="session")
def pixels(tmp_path_factory):
    from tiny_models import save_pixels

    return save_pixels(tmp_path_factory.mktemp("teachers") / "ddim")


@pytest.fixture(scope="session")
def latents(tmp_path_factory):
    from tiny_models import save_latents

    return save_latents(tmp_path_factory.mktemp("teachers") / "dit")


@pytest.fixture(scope="session")
def pixart(tmp_path_factory):
    """A whole pipeline, with its text encoder."""
    from text_encoders import pipeline

    folder = tmp_path_factory.mktemp("pipelines") / "pixart"
    pipeline("PixArtAlphaPipeline", folder)
    return folder


# ---- studies, and what looks at their pages


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """A study of four pairs with its database."""
    from studies import Asked

    return Asked(tmp_path / "study", monkeypatch, a="one-step", b="teacher-35")


@pytest.fixture
def client(asked):
    from visitors import visitor

    return visitor(asked)


@pytest.fixture(scope="session")
def browser():
    """Chromium: the system's, or what `playwright install chromium` brought; without one Playwright's error says so."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run"]
    with sync_playwright() as running:
        found = running.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        yield found
        found.close()


@pytest.fixture(scope="session")
def node():
    """DiceBear's packages, fetched once by npm; without Node.js the error says where to get it."""
    from examples.faces.rendering import install

    install()
