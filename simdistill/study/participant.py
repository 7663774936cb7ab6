"""The participants' pages: consent, one page per pair, thanks; continuing on another device, and withdrawing."""

import re
import secrets

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from simdistill.study.ballot import Ballot, NoPairError, NotShownError, Progress
from simdistill.study.folder import StudyFolder
from simdistill.study.guard import Rate, Seals, address
from simdistill.study.pages import NO_PICTURE, Fields, cookie_name, form, page, picture, set_cookie, to
from simdistill.study.pictures import is_small
from simdistill.study.settings import QUESTIONS

TOKEN = re.compile(r"[A-Za-z0-9_-]{32}")
COOKIES = "This site needs cookies to find your answers again. Allow cookies for this site, then reload the page."
GONE = "You are not taking part in this study (any more). To join, start at the first page."
JOINS = (400, 1.0)  # people who join from one address: at once, and per second in the long run


class ParticipantPages:
    """The routes. A cookie with a token identifies a participant; the personal link sets this cookie."""

    def __init__(self, folder: StudyFolder, ballot: Ballot, seals: Seals) -> None:
        self._folder, self._settings, self._ballot, self._seals = folder, folder.settings, ballot, seals
        self._joins, self._cookie = Rate(*JOINS), cookie_name("participant", folder.settings)
        self.routes = [
            Route("/", self._welcome),
            Route("/join", self._begin),
            form("/join", seals, self._token, self._join, COOKIES),
            Route("/pair/{place:short}", self._pair),
            form("/pair/{place:short}", seals, self._token, self._vote, GONE),
            Route("/thanks", self._thanks),
            Route("/me", self._me),
            Route("/resume/{token}", self._ask),
            form("/resume/{token}", seals, lambda request: request.path_params["token"], self._resume, GONE),
            form("/leave", seals, self._token, self._leave, GONE),
            form("/forget", seals, self._token, self._forget, GONE),
            Route("/forgotten", self._forgotten),
            Route("/picture/{name}", self._picture),
        ]

    def _welcome(self, request: Request) -> Response:
        token, progress = self._who(request)
        return to(_following(progress)) if progress else self._consent(request, token)

    def _consent(self, request: Request, token: str, wrong: str = "") -> Response:
        token, pairs = token or secrets.token_urlsafe(24), self._ballot.offered()
        if not pairs:
            return self._page("thanks", token, last=None)
        values = {"pairs": pairs, "again": self._settings.repeats > 0, "wrong": wrong, "questions": self._questions}
        response = self._page("welcome", token, 400 if wrong else 200, **values)
        set_cookie(response, request, self._cookie, token)
        return response

    def _begin(self, request: Request) -> Response:
        """Redirect a browser that requests the form's address by GET."""
        return to("/")

    def _join(self, request: Request, fields: Fields) -> Response:
        token = self._token(request)
        if fields.get("consent") != "yes":
            return self._consent(request, token, "Tick the box if you agree to take part.")
        if self._ballot.progress(token) is None and not self._joins.allows(address(request.scope)):
            raise HTTPException(429, "Too many people are joining. Try again in a minute.", {"Retry-After": "60"})
        self._ballot.join(token)
        return to("/")

    def _pair(self, request: Request) -> Response:
        return self._shown(request, request.path_params["place"])

    def _shown(self, request: Request, place: int, wrong: str = "") -> Response:
        token, progress = self._who(request)
        shown = self._ballot.show(token, place) if progress else None
        if progress is None or shown is None:
            return to("/")
        before = [one for one in progress.places if one < place]
        after = [one for one in progress.places if one > place and place not in progress.open]
        values = {
            "shown": shown,
            "questions": self._questions,
            "tie": self._settings.tie,
            "before": before[-1] if before else None,
            "after": after[0] if after else None,
            "answered": len(progress.places) - len(progress.open),
            "small": is_small(shown.size),
            "wrong": wrong,
        }
        return self._page("pair", token, 400 if wrong else 200, **values)

    def _vote(self, request: Request, fields: Fields) -> Response:
        place = request.path_params["place"]
        answers = {question: fields[question] for question in self._settings.asked if question in fields}
        try:
            stored = self._ballot.vote(self._token(request), place, answers)
        except ValueError:
            return self._shown(request, place, "Please answer each question.")
        except NoPairError as error:
            raise HTTPException(404, str(error)) from error
        except NotShownError as error:
            raise HTTPException(409, str(error)) from error
        progress = self._ballot.progress(self._token(request)) if stored else None
        return to(f"/pair/{place}") if progress is None else to(_following(progress, place))

    def _thanks(self, request: Request) -> Response:
        token, progress = self._who(request)
        if progress is None or progress.open:
            return to("/")
        return self._page("thanks", token, last=progress.places[-1] if progress.places else None)

    def _me(self, request: Request) -> Response:
        token, progress = self._who(request)
        if progress is None:
            return to("/")
        link = str(request.url.replace(path=f"/resume/{token}", query=""))
        return self._page("me", token, link=link, answered=len(progress.places) - len(progress.open))

    def _ask(self, request: Request) -> Response:
        """Ask before the personal link replaces who takes part in this browser: somebody else may have sent it."""
        token, own = self._linked(request), self._who(request)
        if token == own[0]:
            return to("/")
        return self._page("resume", token, other=own[1] is not None, action=f"/resume/{token}")

    def _linked(self, request: Request) -> str:
        token = request.path_params["token"]
        if not TOKEN.fullmatch(token) or self._ballot.progress(token) is None:
            raise HTTPException(404, "This personal link is not valid.")
        return token

    def _resume(self, request: Request, fields: Fields) -> Response:
        token = self._linked(request)
        response = to("/")
        set_cookie(response, request, self._cookie, token)
        return response

    def _leave(self, request: Request, fields: Fields) -> Response:
        """Make room for the next person at this browser; the answers given so far stay."""
        response = to("/")
        response.delete_cookie(self._cookie)
        return response

    def _forget(self, request: Request, fields: Fields) -> Response:
        self._ballot.forget(self._token(request))
        response = to("/forgotten")
        response.delete_cookie(self._cookie)
        return response

    def _forgotten(self, request: Request) -> Response:
        token, progress = self._who(request)
        return to("/") if progress else self._page("forgotten", token)

    def _picture(self, request: Request) -> Response:
        name = request.path_params["name"]
        if not self._ballot.shows(name):
            raise HTTPException(404, NO_PICTURE)
        return picture(self._folder, name)

    @property
    def _questions(self) -> dict[str, str]:
        return {name: QUESTIONS[name] for name in self._settings.asked}

    def _who(self, request: Request) -> tuple[str, Progress | None]:
        """The token ("" if there is none) and its participant's progress, if there is one."""
        token = self._token(request)
        return token, self._ballot.progress(token) if token else None

    def _token(self, request: Request) -> str:
        """The token in a request's cookie; "" if it is missing or malformed."""
        token = request.cookies.get(self._cookie, "")
        return token if TOKEN.fullmatch(token) else ""

    def _page(self, name: str, token: str, status: int = 200, **values: object) -> Response:
        seal = self._seals.seal(token)
        return page(name, status, title=self._settings.title, contact=self._settings.contact, seal=seal, **values)


def _following(progress: Progress, place: int = 0) -> str:
    """The page after a pair: the next unanswered pair, else the first unanswered one, else the thanks."""
    later = [one for one in progress.open if one > place] or progress.open
    return f"/pair/{later[0]}" if later else "/thanks"
