"""What guards a study's site: rates, seals, and forms of other sites, kinds and sizes."""

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from simdistill.study.guard import LARGEST_FORM, Guard, Rate, Seals, sent_fields
from simdistill.web.door import Door
from simdistill.web.hosts import Hosts


def test_a_rate_is_a_burst_and_then_so_many_a_second():
    time = [0.0]
    rate = Rate(3, 0.5, clock=lambda: time[0])
    assert [rate.allows("a") for _ in range(4)] == [True, True, True, False]
    assert rate.allows("b")  # another's
    time[0] = 1.9
    assert not rate.allows("a")
    time[0] = 2.0
    assert rate.allows("a")
    assert not rate.allows("a")
    time[0] = 1000.0
    assert [rate.allows("a") for _ in range(4)] == [True, True, True, False]


def test_only_so_many_keys_are_remembered(monkeypatch):
    monkeypatch.setattr("simdistill.study.guard.REMEMBERED", 2)
    rate = Rate(1, 0.0, clock=lambda: 0.0)
    assert [rate.allows(key) for key in "abc"] == [True] * 3
    assert not rate.allows("c")
    assert rate.allows("a")  # was forgotten


def test_a_seal_is_of_one_study_and_one_sender():
    seals = Seals("secret")
    assert seals.holds("ann", seals.seal("ann"))
    assert not seals.holds("ann", seals.seal("bob"))
    assert not seals.holds("ann", Seals("another").seal("ann"))
    assert not seals.holds("ann", "ü")


@pytest.fixture
def client():
    async def endpoint(request):
        return JSONResponse(await sent_fields(request))

    guarded = Guard(Starlette(routes=[Route("/", endpoint, methods=["POST"])]), Rate(5, 0.0))
    return TestClient(Door(guarded, Hosts("127.0.0.1", ["testserver", "study.example.org"])))


FORM = {"content-type": "application/x-www-form-urlencoded"}


def test_a_form_of_this_site(client):
    answer = client.post("/", data={"a": "1 ü", "b": "2"}, headers={"origin": "http://testserver"})
    assert answer.json() == {"a": "1 ü", "b": "2"}
    assert client.post("/", content=b"", headers=FORM).json() == {}


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"a=1", {"origin": "http://evil.example"}, 403),
        (b"a=1", {"origin": "null"}, 403),
        (b'{"a": 1}', {"content-type": "application/json"}, 415),
        (b"--x\r\n", {"content-type": "multipart/form-data; boundary=x"}, 415),
        (b"a=" + b"x" * LARGEST_FORM, {}, 413),
        (b"&".join(b"a%d=1" % k for k in range(30)), {}, 400),
        (b"\xff\xfe", {}, 400),
        (b"nothing", {}, 400),
    ],
)
def test_other_forms_are_refused(client, content, headers, status):
    assert client.post("/", content=content, headers=FORM | headers).status_code == status


def test_a_server_before_this_one_that_hides_the_host_is_found_out(client):
    headers = FORM | {"origin": "https://study.example.org"}
    refused = client.post("/", content=b"a=1", headers=headers)
    assert "from another site (study.example.org, not testserver)" in refused.text
    assert client.post("/", content=b"a=1", headers=headers | {"host": "study.example.org"}).status_code == 200


def test_too_many_requests(client):
    answers = [client.post("/", data={"a": "1"}) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    for answer in (answers[0], answers[5]):
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
