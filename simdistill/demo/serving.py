"""The demo's page, served to a browser: without JavaScript; each image appears as soon as it is drawn."""

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib import import_module
from itertools import chain
from typing import Any

from simdistill.demo.pair import LONGEST, MOST, Drawing, Pair, Wish
from simdistill.reports.report import templates
from simdistill.support.bar import duration
from simdistill.support.checks import require
from simdistill.web.serving import address, serve

SAFE = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
}


def serve_pair(pair: Pair, host: str = "127.0.0.1", port: int = 8766, names: Sequence[str] = ()) -> None:
    """Serve the page of `pair` until Ctrl-C, also under public `names`; prints its address to stderr.

    Raises `ValueError` if the server's library is missing, or if the server cannot listen at this address.
    """
    welcome = f"{pair.name}: teacher and student at {address(host, port)} (Ctrl-C stops the server)"
    serve(application(pair), host, port, welcome, names)


def application(pair: Pair) -> Any:
    """The page as an ASGI application: GET / with prompt or label, seed and count; without any, only the form."""
    library, responses, routing = (_library(f"starlette.{name}") for name in ("applications", "responses", "routing"))

    def home(request: Any) -> Any:
        asked: dict[str, str] = dict(request.query_params)
        try:
            wish = _wish(asked)
            drawings = pair.draw(wish) if asked else iter(())
            first = next(drawings, None)  # raises errors in the wish before the page begins
        except ValueError as error:
            return responses.HTMLResponse("".join(_page(pair, asked, iter(()), str(error))), 400, SAFE)
        every = iter(()) if first is None else chain([first], drawings)
        cut = pair.cut(wish) if asked else 0
        wrong = f"The prompt is too long: it was truncated to its first {cut} tokens." if cut else ""
        return responses.StreamingResponse(_page(pair, asked, every, wrong), media_type="text/html", headers=SAFE)

    return library.Starlette(routes=[routing.Route("/", home)])


def _wish(asked: dict[str, str]) -> Wish:
    numbers: dict[str, int] = {}
    for name in ("label", "seed", "count"):
        value = asked.get(name, "").strip()
        whole = re.fullmatch(r"-?[0-9]{1,10}", value) is not None
        require(whole or not value, name, value, "a whole number of at most 10 digits")
        numbers |= {name: int(value)} if value else {}
    return Wish(prompt=" ".join(asked.get("prompt", "").split()), **numbers)


def _page(pair: Pair, asked: dict[str, str], drawings: Iterator[Drawing], wrong: str = "") -> Iterator[str]:
    """The page in chunks, with the form as it was filled in; each drawing's chunk waits until it is done."""
    template = templates("simdistill.demo").get_template("page.html.jinja")
    return template.generate(
        pair=pair,
        asked=asdict(Wish()) | asked,
        drawings=drawings,
        wrong=wrong,
        most=MOST,
        longest=LONGEST,
        shown=_shown,
        passed=_passed,
        level_colours={"light": [], "dark": []},
    )


def _shown(drawing: Drawing) -> str:
    return base64.b64encode(drawing.png).decode()


def _passed(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s" if seconds < 60 else duration(seconds)


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ValueError(f'{error.name} is missing: pip install "simdistill[demo]"') from error
