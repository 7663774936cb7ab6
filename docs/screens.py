"""The screenshots of docs/study.md and docs/faces.md: `python -m docs.screens`.

Of the default study with simulated votes, and of the demo's page with the shipped faces.

Needs Playwright and a Chromium on the PATH.
"""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlencode

import uvicorn
from playwright.sync_api import Browser, sync_playwright

from simdistill.cli import main as simdistill
from simdistill.demo.pair import Pair
from simdistill.demo.serving import application as demo
from simdistill.reports.pictures import side_by_side
from simdistill.study.database import Database
from simdistill.study.folder import StudyFolder
from simdistill.study.simulation import Truth, simulate
from simdistill.study.site import application as study

FOLDER = Path(__file__).parent
PORT = 8768
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run"]
CHECKED = "T-shirt or top"  # of the attention check, too, which is no pair to be shown here
SIZES = {"desktop": {"width": 1100, "height": 800}, "phone": {"width": 390, "height": 800}}


def main() -> None:
    """Serve one after the other, and take all pictures."""
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        with TemporaryDirectory() as room:
            path = Path(room) / "clothes"
            words = ["--tie", "--checks", "1", "--title", "Which clothes are better?", "--contact", "study@example.org"]
            if simdistill(["study", "new", str(path), *words]):
                raise SystemExit(1)
            folder = StudyFolder.open(path)
            database = Database(folder.database, folder.settings.identity)
            simulate(folder.pairs, folder.settings, database, 30, Truth(0.45, tie=0.1, lapse=0.05))
            with _served(study(folder, database)):
                _questionnaire(browser)
                _owners(browser, folder.token)
        with _served(demo(Pair("faces"))):
            _typed(browser)


@contextmanager
def _served(application: Any) -> Iterator[None]:
    server = uvicorn.Server(uvicorn.Config(application, port=PORT, log_level="error"))
    serving = threading.Thread(target=server.run)
    serving.start()
    while not server.started:
        time.sleep(0.1)
    try:
        yield
    finally:
        server.should_exit = True
        serving.join()


def _questionnaire(browser: Browser) -> None:
    """The consent, and a pair on a desktop beside the same on a phone."""
    shots = []
    for name, size in SIZES.items():
        phone = name == "phone"
        page: Any = browser.new_page(viewport=size, color_scheme="light", has_touch=phone, is_mobile=phone)
        page.goto(f"http://127.0.0.1:{PORT}")
        if name == "desktop":
            page.screenshot(path=FOLDER / "study-welcome.png")
        page.get_by_label("I have read this").check()
        page.get_by_role("button", name="Begin").click()
        page.wait_for_url("**/pair/1")
        place = 1
        while page.get_by_role("heading").inner_text() == CHECKED:
            place += 1
            page.goto(f"http://127.0.0.1:{PORT}/pair/{place}")
        shots.append(page.screenshot())
    (FOLDER / "study-pair.png").write_bytes(side_by_side(*shots))


def _owners(browser: Browser, token: str) -> None:
    """The review and the results."""
    page: Any = browser.new_page(viewport=SIZES["desktop"], color_scheme="light")
    page.goto(f"http://127.0.0.1:{PORT}/owner?token={token}")
    page.wait_for_load_state("networkidle")  # its pictures are loaded when they come into view
    page.screenshot(path=FOLDER / "study-review.png")
    page.goto(f"http://127.0.0.1:{PORT}/owner/results")
    page.screenshot(path=FOLDER / "study-results.png")


def _typed(browser: Browser) -> None:
    """What the demo's page shows for a prompt."""
    page: Any = browser.new_page(viewport=SIZES["desktop"], color_scheme="light")
    prompt = "a smiling person with long red hair, glasses and a green shirt on a blue background"
    page.goto(f"http://127.0.0.1:{PORT}/?{urlencode({'prompt': prompt, 'count': 4})}")
    page.screenshot(path=FOLDER / "faces-demo.png")


if __name__ == "__main__":
    main()
