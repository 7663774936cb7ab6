"""Protection of the study's site: security headers, limits of rate and size, and seals (CSRF tokens) on forms."""

import hashlib
import hmac
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LARGEST_FORM = 10_000  # bytes
REMEMBERED = 10_000  # keys whose rate is remembered


class Rate:
    """A token bucket: at most `burst` events at once per key, and `per_second` in the long run."""

    def __init__(self, burst: float, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst, self._per_second, self._clock = burst, per_second, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def allows(self, key: str) -> bool:
        """Whether one more event of this key is within the rate; if so, it is counted."""
        with self._lock:
            time = self._clock()
            left, since = self._left.pop(key, (self._burst, time))
            left = min(self._burst, left + (time - since) * self._per_second)
            self._left[key] = (left - 1 if left >= 1 else left, time)
            if len(self._left) > REMEMBERED:
                self._left.popitem(last=False)
            return left >= 1


class Guard:
    """An application with a rate limit per address.

    Addresses are kept in memory only, never stored.
    """

    def __init__(self, application: ASGIApp, rate: Rate) -> None:
        self._application, self._rate = application, rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request (the ASGI interface)."""
        if scope["type"] != "http" or self._rate.allows(address(scope)):
            return await self._application(scope, receive, send)
        response = PlainTextResponse("Too many requests. Wait a moment.", 429, {"Retry-After": "5"})
        return await response(scope, receive, send)


class Seals:
    """Seals for forms (CSRF tokens): only the holder of the study's `secret` can make them."""

    def __init__(self, secret: str) -> None:
        self._key = hashlib.sha256(b"seals of " + secret.encode()).digest()

    def seal(self, who: str) -> str:
        """The seal on the forms of a participant (by their token) or of the owner."""
        return hmac.new(self._key, who.encode(), hashlib.sha256).hexdigest()

    def holds(self, who: str, seal: str) -> bool:
        """Whether the seal is right; compared in constant time."""
        return same(self.seal(who), seal)


def same(expected: str, given: str) -> bool:
    """Whether two secrets are equal; compared in constant time."""
    return hmac.compare_digest(expected.encode(), given.encode())


def address(scope: Scope) -> str:
    """The client's address."""
    client: Any = scope.get("client")
    return client[0] if client else ""


async def sent_fields(request: Request) -> dict[str, str]:
    """The fields of a form sent by this site; `HTTPException` for forms of other sites, with files, or too large."""
    origin = request.headers.get("origin")
    theirs, ours = urlsplit(origin or "").netloc, request.headers.get("host")
    if origin is not None and theirs != ours:
        raise HTTPException(403, f"This form came from another site ({theirs or origin}, not {ours}).")
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise HTTPException(415, "Only URL-encoded forms are accepted.")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_FORM:
            raise HTTPException(413, "This form is too large.")
    try:
        return dict(parse_qsl(body.decode("ascii"), strict_parsing=bool(body), max_num_fields=20))
    except ValueError as error:
        raise HTTPException(400, "This form cannot be read.") from error
