"""What every server of this package shares: the names that it answers to, and the security headers of its responses."""

import ipaddress
import socket
from collections.abc import Iterable

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",  # no-referrer would hide the origin of forms from us, too
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Default headers of every response."""
EVERY = ("0.0.0.0", "::")
LOCAL = ("localhost", "127.0.0.1", "::1")


class Hosts:
    """The names in a request's Host header that a server answers to.

    A page of another site can make a browser send requests to this machine under a name of its own (DNS rebinding); so
    names must be known. They are localhost, the address that the server listens on, `names`, and, if it listens on all
    addresses, this machine's name and any address in digits, which no other site can take.
    """

    def __init__(self, host: str, names: Iterable[str] = ()) -> None:
        own = (socket.gethostname(), f"{socket.gethostname()}.local", socket.getfqdn()) if host in EVERY else (host,)
        self._all, self._known = host in EVERY, {name.lower() for name in (*LOCAL, *own, *names)}

    def know(self, header: str) -> bool:
        """Whether the server answers to a Host header, "name" or "name:port"."""
        name, colon, port = header.strip().lower().rpartition(":")
        if not colon or not port.isdigit():
            name = header.strip().lower()
        name = name.removeprefix("[").removesuffix("]").removesuffix(".")
        return name in self._known or (self._all and _is_address(name))


def unknown(header: str) -> str:
    """The answer to a request for another host."""
    name = ascii(header)[1:-1][:80]
    return f'This server does not answer to the name "{name}". Its owner can start it with --public-name.'


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
