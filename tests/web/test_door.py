"""The door of the servers: names, headers, limits, and clients that leave."""

import asyncio
import contextlib
import socket
import threading
import time

import pytest
import uvicorn
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from simdistill.web import door
from simdistill.web.door import Door, settings
from simdistill.web.hosts import HEADERS, Hosts


@pytest.mark.parametrize(
    ("host", "names", "header", "known"),
    [
        ("127.0.0.1", (), "localhost:8000", True),
        ("127.0.0.1", (), "127.0.0.1", True),
        ("127.0.0.1", (), "[::1]:8000", True),
        ("127.0.0.1", (), "LOCALHOST.:8000", True),
        ("127.0.0.1", (), "evil.example", False),
        ("127.0.0.1", (), "localhost.evil.example:8000", False),
        ("127.0.0.1", (), "192.168.0.7:8000", False),
        ("127.0.0.1", (), "", False),
        ("127.0.0.1", (), "localhost, evil.example", False),
        ("127.0.0.1", ("study.example.org",), "Study.Example.org:443", True),
        ("192.168.0.7", (), "192.168.0.7:8000", True),
        ("192.168.0.7", (), "192.168.0.8:8000", False),
        ("0.0.0.0", (), "192.168.0.7:8000", True),
        ("0.0.0.0", (), "[fe80::1]:8000", True),
        ("0.0.0.0", (), f"{socket.gethostname()}:8000", True),
        ("0.0.0.0", (), "evil.example", False),
        ("0.0.0.0", (), "1.2.3.4.evil.example", False),
    ],
)
def test_names(host, names, header, known):
    assert Hosts(host, names).know(header) == known


def behind(answer):
    async def application(scope, receive, send):
        await answer(scope, receive, send)

    return Door(application, Hosts("127.0.0.1"))


def test_other_hosts_are_refused_and_all_answers_have_the_headers():
    client = TestClient(behind(PlainTextResponse("yes", headers={"Cache-Control": "max-age=3600"})), "http://localhost")
    answers = [client.get("/"), client.get("/", headers={"host": "evil.example"})]
    assert [(answer.status_code, answer.text[:19]) for answer in answers] == [
        (200, "yes"),
        (421, "This server does no"),
    ]
    assert '"evil.example"' in answers[1].text
    assert "--public-name" in answers[1].text
    assert answers[0].headers["Cache-Control"] == "max-age=3600"  # its own stays
    for answer in answers:
        assert {name: answer.headers[name] for name in HEADERS if name != "Cache-Control"} == {
            name: value for name, value in HEADERS.items() if name != "Cache-Control"
        }


def test_a_client_that_leaves_makes_no_noise():
    async def leaves(scope, receive, send):
        raise ClientDisconnect

    with contextlib.suppress(AssertionError):  # the test client misses an answer
        TestClient(behind(leaves), "http://localhost").get("/")


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(door, "PATIENCE", 0.05)
    received = []

    async def waits(scope, receive, send):
        received.append(await receive())

    async def never():
        await asyncio.sleep(60)

    async def nothing(message):
        pass

    scope = {"type": "http", "headers": [(b"host", b"localhost")]}
    asyncio.run(behind(waits)(scope, never, nothing))
    assert received == [{"type": "http.disconnect"}]


def test_a_slow_answer_is_not_cut_off(monkeypatch):
    monkeypatch.setattr(door, "PATIENCE", 0.05)
    received, messages = [], iter([b"", None])

    async def draws(scope, receive, send):
        received.append(await receive())
        received.append(await receive())

    async def leaves_late():
        body = next(messages)
        if body is None:
            await asyncio.sleep(0.3)
            return {"type": "http.disconnect", "late": True}
        return {"type": "http.request", "body": body, "more_body": False}

    async def nothing(message):
        pass

    asyncio.run(behind(draws)({"type": "http", "headers": [(b"host", b"localhost")]}, leaves_late, nothing))
    assert received[0]["type"] == "http.request"
    assert received[1] == {"type": "http.disconnect", "late": True}


@pytest.fixture
def port(monkeypatch):
    """A real server, with little patience."""
    monkeypatch.setattr(door, "PATIENCE", 0.5)
    found = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(behind(PlainTextResponse("yes")), **settings() | {"timeout_keep_alive": 1}))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [found]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield found.getsockname()[1]
    server.should_exit = True
    thread.join(10)


def answer_to(port, content):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(content)
        parts = []
        with contextlib.suppress(ConnectionError):
            while part := client.recv(2**16):
                parts.append(part)
    return b"".join(parts)


def test_endless_headers_and_silent_connections_end(port):
    asked = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
    assert answer_to(port, asked + b"Connection: close\r\n\r\n").endswith(b"yes")
    assert b" 400 " in answer_to(port, asked + b"X: " + b"a" * 2**20)
    assert b" 400 " in answer_to(port, asked + b"".join(b"X%d: a\r\n" % k for k in range(10**5)))
    began = time.monotonic()
    assert answer_to(port, asked) == b""  # a head that does not end
    assert answer_to(port, b"") == b""
    assert time.monotonic() - began < 8
    assert b"server:" not in answer_to(port, asked + b"Connection: close\r\n\r\n").lower()


@pytest.mark.parametrize(("proxies", "believed"), [((), False), (("127.0.0.1",), True)])
def test_only_named_proxies_are_believed(proxies, believed):
    found = settings(proxies)
    assert (found["proxy_headers"], found["forwarded_allow_ips"]) == (believed, [*proxies])
