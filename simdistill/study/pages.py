"""Templates, cookies and forms shared by the participants' and the owner's pages."""

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
    """Numbers of at most nine digits: Python refuses to convert thousands of digits."""

    regex = "[0-9]{1,9}"


register_url_convertor("short", _Short())
DAYS = 60  # lifetime of a cookie
NO_PICTURE = "There is no such image."
FOREIGN = "This form has expired. Reload its page and send it again."


def page(name: str, status: int = 200, **values: Any) -> HTMLResponse:
    """The page made from the template of this name."""
    template = templates("simdistill.study").get_template(f"{name}.html.jinja")
    return HTMLResponse(template.render(**values), status)


def to(path: str) -> RedirectResponse:
    """Redirect to a path, by GET."""
    return RedirectResponse(path, 303)


def form(path: str, seals: Seals, who: Callable[[Request], str], handle: Handler, nobody: str = FOREIGN) -> Route:
    """The route of a form, accepted only with the sender's seal; `handle` runs in a thread.

    `who` identifies the sender; unknown senders get the message `nobody`.
    """

    async def endpoint(request: Request) -> Response:
        fields = await sent_fields(request)
        sender = who(request)
        if not sender or not seals.holds(sender, fields.pop("seal", "")):
            raise HTTPException(403, FOREIGN if sender else nobody)
        return await run_in_threadpool(handle, request, fields)

    return Route(path, endpoint, methods=["POST"])


def cookie_name(whose: str, settings: Settings) -> str:
    """A name of the study's own: browsers send cookies to all ports of a host, so also to other studies."""
    return f"{whose}-{settings.identity[:8]}"


def set_cookie(response: Response, request: Request, name: str, value: str) -> None:
    """Set a cookie that scripts cannot read and other sites cannot send with a form."""
    response.set_cookie(
        name, value, max_age=DAYS * 86400, httponly=True, samesite="lax", secure=request.url.scheme == "https"
    )


def picture(folder: StudyFolder, name: str) -> Response:
    """An image of the study; `HTTPException` for an unknown name."""
    try:
        content = folder.picture(name)
    except KeyError as error:
        raise HTTPException(404, NO_PICTURE) from error
    # no date and no ETag: they could reveal which images belong to the same side
    return Response(content, media_type="image/png", headers={"Cache-Control": "private, max-age=86400, immutable"})
