"""A study's site as attackers meet it: headers, cookies, forged forms, ways out, other people's answers."""

import pytest
from starlette.testclient import TestClient
from studies import noise
from visitors import cookie, join, seal, visitor

from simdistill.study.database import Database
from simdistill.study.folder import Draft, StudyFolder
from simdistill.study.settings import Settings
from simdistill.study.site import application


def test_every_answer_has_safe_headers(asked, client):
    for path in ("/", "/nothing", "/study.css", "/owner", "/picture/x.png", "/pair/1"):
        headers = client.get(path).headers
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["X-Frame-Options"] == "DENY"


def test_cookies_are_closed_to_scripts(asked):
    plain, secure = visitor(asked).get("/"), visitor(asked, "https://study.test").get("/")
    for answer in (plain, secure):
        assert "HttpOnly" in answer.headers["set-cookie"]
        assert "SameSite=lax" in answer.headers["set-cookie"]
    assert "Secure" in secure.headers["set-cookie"]
    assert "Secure" not in plain.headers["set-cookie"]


def test_forms_without_their_seal_do_nothing(asked, client):
    page = join(client)
    other = visitor(asked)
    foreign = seal(join(other).text)
    for wrong in ({"seal": ""}, {"seal": "0" * 64}, {"seal": foreign}):
        assert client.post("/pair/1", data={"overall": "left"} | wrong).status_code == 403
        assert client.post("/forget", data=wrong).status_code == 403
    stolen = {"seal": seal(page.text), "overall": "left"}
    assert client.post("/pair/1", data=stolen, headers={"origin": "https://evil.test"}).status_code == 403
    nobody = visitor(asked)
    assert nobody.post("/pair/1", data=stolen).status_code == 403
    assert asked.owner.votes().height == 0
    assert asked.owner.participants() == 2


@pytest.mark.parametrize(
    "path",
    [
        "/picture/../owner.token",
        "/picture/..%2fowner.token",
        "/picture/%2e%2e%2fstudy.toml",
        "/picture/%2e%2e/pairs.jsonl",
        "/picture/....//votes.sqlite3",
        "/picture/%00.png",
        "/picture/",
        "/picture",
        "/owner.token",
        "/votes.sqlite3",
        "/static/../owner.token",
        "/resume/" + "x" * 32,
        "/resume/1",
        "/resume/'%20OR%201=1--",
        "/owner/votes",
    ],
)
def test_no_way_out_of_the_study(asked, client, path):
    join(client)
    answer = client.get(path)
    assert answer.status_code == 404
    assert asked.folder.token not in answer.text


@pytest.mark.parametrize(
    "choice", ["tie", "a", "", "left'; DROP TABLE votes;--", "<script>alert(1)</script>", "LEFT", "x" * 5000]
)
def test_other_choices_are_refused(asked, client, choice):
    page = join(client)
    answer = client.post("/pair/1", data={"seal": seal(page.text), "overall": choice})
    assert answer.status_code == 400
    assert "<script>alert" not in answer.text
    assert asked.owner.votes().height == 0


@pytest.mark.parametrize("place", ["0", "5", "99999999999999999999", "9" * 5000, "-1", "1.5", "x"])
def test_other_places_have_no_pair(asked, client, place):
    page = join(client)
    answer = client.post(f"/pair/{place}", data={"seal": seal(page.text), "overall": "left"})
    assert answer.status_code == 404
    assert client.get(f"/pair/{place}").url.path in ("/pair/1", f"/pair/{place}")
    assert asked.owner.votes().height == 0


def test_votes_before_their_time_are_refused(asked, client):
    before = client.post("/pair/1", data={"seal": seal(client.get("/").text), "overall": "left"})
    assert (before.status_code, "You have not joined" in before.text) == (409, True)
    page = join(client)
    unseen = client.post("/pair/2", data={"seal": seal(page.text), "overall": "left"})
    assert (unseen.status_code, "You have not seen this pair" in unseen.text) == (409, True)
    assert asked.owner.votes().height == 0
    client.get("/pair/2")
    assert client.post("/pair/2", data={"seal": seal(page.text), "overall": "left"}).url.path == "/pair/3"
    asked.owner.review(asked.owner.votes()["pair"][0], kept=False)  # dropped while they look at it
    assert client.post("/pair/2", data={"seal": seal(page.text), "overall": "right"}).url.path == "/pair/1"


def test_too_many_who_join_are_told_when_to_come_back(asked, monkeypatch):
    monkeypatch.setattr("simdistill.study.participant.JOINS", (0, 0.0))
    refused = join(visitor(asked))
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "60")
    assert asked.owner.participants() == 0


def test_participants_cannot_reach_each_others_answers(asked, client):
    join(client)
    other = visitor(asked)
    page = join(other)
    other.post("/pair/1", data={"seal": seal(page.text), "overall": "left"})
    assert "your answer" in other.get("/pair/1").text
    assert "your answer" not in client.get("/pair/1").text
    made_up = visitor(asked)
    for token in ("x" * 32, "1", "' OR 1=1 --", "../../x"):
        made_up.cookies.set(cookie(asked), token, domain="study.test")
        assert made_up.get("/pair/1").url.path == "/"


def test_a_prompt_is_text(tmp_path):
    drafts = [Draft("<script>alert(1)</script>", noise(1), noise(2))]
    folder = StudyFolder.create(tmp_path / "s", Settings(title="<b>x</b>"), drafts)
    database = Database(folder.database, folder.settings.identity)
    page = join(TestClient(application(folder, database)))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.text
    assert "<b>x" not in page.text
