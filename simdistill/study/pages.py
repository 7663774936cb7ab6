"""What the participants' and the owner's pages share: templates, cookies, forms."""

from collections.abc import Callable
from typing import Any, TypeAlias

from starlette.concurrency import run_in_threadpool
from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from simdistill.reports.report import templates
from simdistill.study.folder import StudyFolder
from simdistill.study.guard import Seals, sent_fields
from simdistill.study.settings import Settings

Fields: TypeAlias = dict[str, str]
Handler: TypeAlias = Callable[[Request, Fields], Response]


class _Short(IntegerConvertor):
    """Numbers of at most nine digits: of thousands Python refuses to make one."""

    regex = "[0-9]{1,9}"


register_url_convertor("short", _Short())
DAYS = 60  # that a cookie lives
NO_PICTURE = "There is no such picture."
FOREIGN = "This form is not of this visit: load its page again, and send it from there."


def page(name: str, status: int = 200, **values: Any) -> HTMLResponse:
    """The page of that template."""
    template = templates("simdistill.study").get_template(f"{name}.html.jinja")
    return HTMLResponse(template.render(**values), status)


def to(path: str) -> RedirectResponse:
    """Go there by GET."""
    return RedirectResponse(path, 303)


def form(path: str, seals: Seals, who: Callable[[Request], str], handle: Handler, nobody: str = FOREIGN) -> Route:
    """The route of a form that counts only with the seal of `who` sends it; `handle` runs in a thread.

    `nobody` is what those are told of whom `who` knows nothing.
    """

    async def endpoint(request: Request) -> Response:
        fields = await sent_fields(request)
        sender = who(request)
        if not sender or not seals.holds(sender, fields.pop("seal", "")):
            raise HTTPException(403, FOREIGN if sender else nobody)
        return await run_in_threadpool(handle, request, fields)

    return Route(path, endpoint, methods=["POST"])


def cookie_name(whose: str, settings: Settings) -> str:
    """The study's own, since all studies of one host, at whatever ports, are sent each other's cookies."""
    return f"{whose}-{settings.identity[:8]}"


def set_cookie(response: Response, request: Request, name: str, value: str) -> None:
    """A cookie that no script can read and no other site can send in a form."""
    response.set_cookie(
        name, value, max_age=DAYS * 86400, httponly=True, samesite="lax", secure=request.url.scheme == "https"
    )


def picture(folder: StudyFolder, name: str) -> Response:
    """A picture of the study; `HTTPException` if it has none of that name."""
    try:
        content = folder.picture(name)
    except KeyError as error:
        raise HTTPException(404, NO_PICTURE) from error
    # neither a date nor a tag: those of one side's files would be alike
    return Response(content, media_type="image/png", headers={"Cache-Control": "private, max-age=86400, immutable"})
