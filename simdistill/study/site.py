"""The study as a web site: all pages behind one guard, and the server."""

from collections.abc import Sequence
from importlib.resources import files

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from simdistill.reports.report import templates
from simdistill.study.ballot import Ballot
from simdistill.study.database import Database
from simdistill.study.folder import StudyFolder
from simdistill.study.guard import Guard, Rate, Seals
from simdistill.study.owner import Owner
from simdistill.study.owner_pages import OwnerPages
from simdistill.study.pages import page
from simdistill.study.participant import ParticipantPages
from simdistill.web.hosts import EVERY
from simdistill.web.serving import address, serve

REQUESTS = (4000, 200.0)  # per address: at once, and per second in the long run; a lab may share an address

SAYS = {
    "Not Found": "There is no such page.",
    "Method Not Allowed": "There is nothing to see at this address. Go back to the first page.",
}
"""Our messages in place of Starlette's."""
LASTING = {"Cache-Control": "max-age=3600"}


def serve_study(
    folder: StudyFolder,
    database: Database,
    host: str = "127.0.0.1",
    port: int = 8767,
    names: Sequence[str] = (),
    proxies: Sequence[str] = (),
) -> None:
    """Serve the study until Ctrl-C, also under public `names`; prints its addresses to stderr.

    Addresses of participants are those that the trusted `proxies` tell. `ValueError` if it cannot listen there.
    """
    base = address(host, port)
    welcome = f"""participants: {base} (Ctrl-C stops the server; all votes are kept)
owner: {base}owner?token={folder.token}"""
    if host in EVERY:
        welcome += "\nIf others cannot reach this machine by its name, give them its IP address instead."
    serve(application(folder, database), host, port, welcome, names, proxies)


def application(folder: StudyFolder, database: Database) -> ASGIApp:
    """The study as an ASGI application."""
    seals = Seals(folder.token)
    participants = ParticipantPages(folder, Ballot(folder, database), seals)
    owner = OwnerPages(folder, Owner(folder, database), seals)
    shared = [Route("/study.css", _style), Route("/keys.js", _script), Route("/favicon.ico", _no_icon)]
    site = Starlette(
        routes=[*participants.routes, *owner.routes, *shared],
        exception_handlers={HTTPException: _refused, Exception: _failed},
    )
    return Guard(site, Rate(*REQUESTS))


def _style(_: Request) -> Response:
    template = templates("simdistill.study").get_template("study.css.jinja")
    return Response(template.render(level_colours={"light": [], "dark": []}), media_type="text/css", headers=LASTING)


def _script(_: Request) -> Response:
    script = (files("simdistill.study") / "keys.js").read_text(encoding="utf-8")
    return Response(script, media_type="text/javascript", headers=LASTING)


def _no_icon(_: Request) -> Response:
    return Response(status_code=204, headers=LASTING)


def _refused(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    says = error.detail if isinstance(error, HTTPException) else ""
    response = page("refused", status, says=SAYS.get(says, says))
    response.headers.update((error.headers if isinstance(error, HTTPException) else None) or {})
    return response


def _failed(request: Request, error: Exception) -> Response:
    return page("refused", 500, says="Something went wrong. Your answers are not lost. Reload the page.")
