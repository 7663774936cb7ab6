"""What the participants' and the owner's pages share: templates, cookies, forms."""

from collections.abc import Callable
from typing import Any, TypeAlias

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from simdistill.evaluation.report import templates
from simdistill.study.guard import Seals, sent_fields

Fields: TypeAlias = dict[str, str]
Handler: TypeAlias = Callable[[Request, Fields], Response]
DAYS = 60  # that a cookie lives


def page(name: str, status: int = 200, **values: Any) -> HTMLResponse:
    """The page of that template."""
    template = templates("simdistill.study").get_template(f"{name}.html.jinja")
    return HTMLResponse(template.render(**values), status)


def to(path: str) -> RedirectResponse:
    """Go there by GET."""
    return RedirectResponse(path, 303)


def form(path: str, seals: Seals, who: Callable[[Request], str], handle: Handler) -> Route:
    """The route of a form that counts only with the seal of `who` sends it; `handle` runs in a thread."""

    async def endpoint(request: Request) -> Response:
        fields = await sent_fields(request)
        sender = who(request)
        if not sender or not seals.holds(sender, fields.pop("seal", "")):
            raise HTTPException(403, "This form is not of this visit: load its page again, and send it from there.")
        return await run_in_threadpool(handle, request, fields)

    return Route(path, endpoint, methods=["POST"])


def set_cookie(response: Response, request: Request, name: str, value: str) -> None:
    """A cookie that no script can read and no other site can send in a form."""
    response.set_cookie(
        name, value, max_age=DAYS * 86400, httponly=True, samesite="lax", secure=request.url.scheme == "https"
    )
