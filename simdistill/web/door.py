"""The door of the servers: known hosts only, security headers, limits of time and size, no noise when clients leave."""

import asyncio
from collections.abc import Iterable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from simdistill.web.hosts import HEADERS, Hosts, unknown

LARGEST_HEAD = 2**14  # bytes of a request's line and headers
PATIENCE = 20.0  # seconds that a client may take for them, and for each further part
CONNECTIONS = 1000


class Door:
    """An ASGI application behind the door."""

    def __init__(self, application: ASGIApp, hosts: Hosts) -> None:
        self._application, self._hosts = application, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request (the ASGI interface)."""
        if scope["type"] != "http":
            return await self._application(scope, receive, send)

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        whole = False

        async def receive_soon() -> Message:
            nonlocal whole
            try:  # once all is there, an application only listens whether the client leaves, as long as it draws
                message = await (receive() if whole else asyncio.wait_for(receive(), PATIENCE))
            except asyncio.TimeoutError:
                return {"type": "http.disconnect"}
            whole = whole or not message.get("more_body", False)
            return message

        asked = Headers(scope=scope).getlist("host")
        if len(asked) != 1 or not self._hosts.know(asked[0]):
            response = PlainTextResponse(unknown(", ".join(asked)), 421)
            return await response(scope, receive, send_safely)
        try:
            return await self._application(scope, receive_soon, send_safely)
        except ClientDisconnect:
            return None


class Impatient(H11Protocol):
    """uvicorn's protocol, which would wait for ever for the first request of a connection."""

    def connection_made(self, transport: Any) -> None:
        """Begin to wait."""
        super().connection_made(transport)
        self.loop.call_later(PATIENCE, self._give_up)

    def _give_up(self) -> None:
        asked: Any = self.cycle  # None before the first request
        if asked is None and not self.transport.is_closing():
            self.transport.close()


def settings(proxies: Iterable[str] = ()) -> dict[str, Any]:
    """uvicorn's settings: bounded requests, and headers of proxies only from those that are trusted."""
    trusted = [*proxies]
    return {
        "http": Impatient,
        "h11_max_incomplete_event_size": LARGEST_HEAD,
        "timeout_keep_alive": int(PATIENCE),
        "limit_concurrency": CONNECTIONS,
        "proxy_headers": bool(trusted),
        "forwarded_allow_ips": trusted,
        "log_level": "error",
        "server_header": False,
    }
