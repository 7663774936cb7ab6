"""The owner's pages, protected by the study's token: review the pairs, see the results, download the votes."""

import io
from collections.abc import Callable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from simdistill.study.bars import bars
from simdistill.study.folder import StudyFolder
from simdistill.study.guard import Rate, Seals, address, same
from simdistill.study.owner import Owner
from simdistill.study.pages import Fields, cookie_name, form, page, picture, set_cookie, to
from simdistill.study.pictures import is_small
from simdistill.study.results import Results, tell
from simdistill.support.tables import without_formulas

TRIES = (10, 1 / 60)  # attempts at the token per address: at once, and per second in the long run


class OwnerPages:
    """The routes. A cookie with a seal, given in exchange for the token, identifies the owner."""

    def __init__(self, folder: StudyFolder, owner: Owner, seals: Seals) -> None:
        self._folder, self._owner, self._seals = folder, owner, seals
        self._tries, self._cookie = Rate(*TRIES), cookie_name("owner", folder.settings)
        self.routes = [
            Route("/owner", self._review),
            form("/owner/enter", seals, lambda request: "enter", self._enter),
            form("/owner/pairs", seals, self._owner_of, self._keep_rest),
            form("/owner/pair/{number:short}", seals, self._owner_of, self._decide),
            Route("/owner/picture/{name}", self._picture),
            Route("/owner/results", self._results),
            form("/owner/participant/{number:short}", seals, self._owner_of, self._exclude),
            Route("/owner/participant/{number:short}/delete", self._ask),
            form("/owner/participant/{number:short}/delete", seals, self._owner_of, self._delete),
            Route("/owner/bars.png", self._bars),
            Route("/owner/votes.csv", self._csv),
            Route("/owner/votes.parquet", self._parquet),
        ]

    def _owner_of(self, request: Request) -> str:
        """Who sent the form: "owner", or "" for anyone else."""
        return "owner" if same(self._seals.seal("owner's cookie"), request.cookies.get(self._cookie, "")) else ""

    def _review(self, request: Request) -> Response:
        token = request.query_params.get("token")
        if token is not None:  # the link that `serve` prints
            return self._enter(request, {"token": token})
        if not self._owner_of(request):
            return page("enter", 401, seal=self._seals.seal("enter"))
        reviews = self._owner.reviews()
        return page(
            "review",
            seal=self._seals.seal("owner"),
            pairs=self._folder.pairs,
            reviews=reviews,
            waiting=[pair.number for pair in self._folder.pairs if pair.number not in reviews],
            participants=self._owner.participants(),
            sizes=self._folder.sizes,
            is_small=is_small,
            settings=self._folder.settings,
        )

    def _enter(self, request: Request, fields: Fields) -> Response:
        if not same(self._folder.token, fields.get("token", "").strip()):  # the right one is never refused
            if not self._tries.allows(address(request.scope)):
                raise HTTPException(429, "Too many attempts. Wait a minute.", {"Retry-After": "60"})
            raise HTTPException(403, "Wrong token. The owner's token is in the file owner.token in the study's folder.")
        response = to("/owner")
        set_cookie(response, request, self._cookie, self._seals.seal("owner's cookie"))
        return response

    def _decide(self, request: Request, fields: Fields) -> Response:
        number, kept = request.path_params["number"], fields.get("kept")
        if kept not in ("yes", "no"):
            raise HTTPException(400, "Choose to keep or to drop the pair.")
        try:
            self._owner.review(number, kept == "yes")
        except ValueError as error:
            raise HTTPException(404, "There is no such pair.") from error
        return to(f"/owner#pair-{number}")

    def _keep_rest(self, request: Request, fields: Fields) -> Response:
        self._owner.keep_rest()
        return to("/owner")

    def _picture(self, request: Request) -> Response:
        self._only_owner(request)
        return picture(self._folder, request.path_params["name"])

    def _results(self, request: Request) -> Response:
        self._only_owner(request)
        seal = self._seals.seal("owner")
        return page("results", title="Results", seal=seal, people=self._owner.people(), results=self._told())

    def _told(self) -> Results:
        return tell(self._owner.votes(), self._folder.settings, excluded=self._owner.excluded())

    def _exclude(self, request: Request, fields: Fields) -> Response:
        if fields.get("excluded") not in ("yes", "no"):
            raise HTTPException(400, "Choose to exclude or to include the participant.")
        return self._changed(lambda number: self._owner.exclude(number, fields["excluded"] == "yes"), request)

    def _ask(self, request: Request) -> Response:
        self._only_owner(request)
        number = request.path_params["number"]
        if number not in self._owner.people():
            raise HTTPException(404, "There is no such participant.")
        return page("delete", title=f"Delete participant {number}?", number=number, seal=self._seals.seal("owner"))

    def _delete(self, request: Request, fields: Fields) -> Response:
        return self._changed(self._owner.delete, request)

    def _changed(self, change: Callable[[int], None], request: Request) -> Response:
        try:
            change(request.path_params["number"])
        except ValueError as error:
            raise HTTPException(404, "There is no such participant.") from error
        return to("/owner/results#people")

    def _bars(self, request: Request) -> Response:
        self._only_owner(request)
        return Response(bars(self._told()), media_type="image/png")

    def _csv(self, request: Request) -> Response:
        self._only_owner(request)
        return _file(without_formulas(self._owner.votes()).write_csv().encode(), "text/csv", "votes.csv")

    def _parquet(self, request: Request) -> Response:
        self._only_owner(request)
        buffer = io.BytesIO()
        self._owner.votes().write_parquet(buffer)
        return _file(buffer.getvalue(), "application/vnd.apache.parquet", "votes.parquet")

    def _only_owner(self, request: Request) -> None:
        if not self._owner_of(request):
            raise HTTPException(403, "This page is for the study's owner. Sign in at /owner first.")


def _file(content: bytes, kind: str, name: str) -> Response:
    return Response(content, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})
