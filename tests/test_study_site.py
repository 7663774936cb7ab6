"""The study's site as browsers and attackers meet it: a questionnaire from consent to thanks, and what is refused."""

import io
import re

import numpy as np
import polars as pl
import pytest
from PIL import Image
from starlette.testclient import TestClient
from studies import Asked, noise

from simdistill.study import owner_pages
from simdistill.study.database import Database
from simdistill.study.folder import Draft, StudyFolder
from simdistill.study.participant import COOKIE
from simdistill.study.settings import Settings
from simdistill.study.site import application


@pytest.fixture
def asked(tmp_path, monkeypatch):
    return Asked(tmp_path / "study", monkeypatch, a="one-step", b="teacher-35")


def visitor(asked, base="http://study.test"):
    return TestClient(application(asked.folder, asked.database), base_url=base)


@pytest.fixture
def client(asked):
    return visitor(asked)


def seal(html):
    return re.findall(r'name="seal" value="([0-9a-f]{64})"', html)[-1]


def join(client):
    welcome = client.get("/")
    return client.post("/join", data={"seal": seal(welcome.text), "consent": "yes"})


def enter(client, asked):
    return client.get("/owner", params={"token": asked.folder.token})


# --- A questionnaire --------------------------------------------------------------------------------------------------


def test_from_consent_to_thanks(asked, client):
    page = join(client)
    seen = []
    for number in range(1, 5):
        assert page.url.path == f"/pair/{number}"
        assert f"Pair {number} of 4" in page.text
        assert f'value="{number - 1}" aria-label="Answered"' in page.text
        left, right = re.findall(r'src="(/picture/[0-9a-f]{32}\.png)"', page.text)
        (prompt,) = re.findall(r'<h1 class="prompt">prompt (\d)</h1>', page.text)
        pixels = [np.asarray(Image.open(io.BytesIO(client.get(one).content))) for one in (left, right)]
        drawn = {side: np.asarray(noise(int(prompt) + 100 * (side == "b"))) for side in "ab"}
        a_is_left = np.array_equal(pixels[0], drawn["a"])
        assert np.array_equal(pixels[1], drawn["b" if a_is_left else "a"])
        seen.append((int(prompt) + 1, "a" if a_is_left else "b"))
        page = client.post(f"/pair/{number}", data={"seal": seal(page.text), "overall": "left"})
    assert page.url.path == "/thanks"
    votes = asked.owner.votes()
    assert list(votes.select("pair", "winner").iter_rows()) == seen
    assert (votes["seconds"] > 0).all()


def test_back_change_and_forward(asked, client):
    page = join(client)
    client.post("/pair/1", data={"seal": seal(page.text), "overall": "left"})
    page = client.get("/pair/2")
    assert 'href="/pair/1">Back' in page.text
    assert "Forward" not in page.text
    page = client.get("/pair/1")
    assert 'href="/pair/2">Forward' in page.text
    assert re.findall(r'value="(\w+)" class="chosen"', page.text) == ["left"]
    assert client.post("/pair/1", data={"seal": seal(page.text), "overall": "right"}).url.path == "/pair/2"
    assert asked.owner.votes()["choice"].to_list() == ["right"]


def test_retries_and_double_clicks_count_once(asked, client):
    welcome = client.get("/")
    for _ in range(2):
        page = client.post("/join", data={"seal": seal(welcome.text), "consent": "yes"})
    assert asked.owner.participants() == 1
    for _ in range(3):
        assert client.post("/pair/1", data={"seal": seal(page.text), "overall": "left"}).url.path == "/pair/2"
    assert asked.owner.votes().height == 1


def test_going_on_by_cookie_and_by_personal_link(asked, client):
    page = join(client)
    client.post("/pair/1", data={"seal": seal(page.text), "overall": "left"})
    assert client.get("/").url.path == "/pair/2"
    (link,) = re.findall(r"<code>http://study.test(/resume/\S+)</code>", client.get("/me").text)
    other = visitor(asked)
    assert other.get(link).url.path == "/pair/2"
    assert other.get("/pair/1").status_code == 200
    assert asked.owner.participants() == 1


def test_without_consent_nobody_takes_part(asked, client):
    page = client.get("/")
    refused = client.post("/join", data={"seal": seal(page.text)})
    assert refused.status_code == 400
    assert "Tick the box if you agree" in refused.text
    assert asked.owner.participants() == 0
    for path in ("/pair/1", "/thanks", "/me"):
        assert client.get(path).url.path == "/"


def test_deleted_on_request(asked, client):
    page = join(client)
    client.post("/pair/1", data={"seal": seal(page.text), "overall": "left"})
    page = client.post("/forget", data={"seal": seal(client.get("/me").text)})
    assert "Your answers are deleted" in page.text
    assert COOKIE not in client.cookies
    assert (asked.owner.participants(), asked.owner.votes().height) == (0, 0)
    assert "agree to take part" in client.get("/").text


def test_two_questions_with_a_tie(tmp_path, monkeypatch):
    asked = Asked(tmp_path / "s", monkeypatch, questions="two", tie=True)
    client = visitor(asked)
    page = join(client)
    assert re.findall(r'type="radio" name="(\w+)" value="(\w+)"', page.text) == [
        (question, choice) for question in ("text", "quality") for choice in ("left", "right", "tie")
    ]
    missing = client.post("/pair/1", data={"seal": seal(page.text), "text": "tie"})
    assert missing.status_code == 400
    assert "Please answer each question." in missing.text
    assert (
        client.post("/pair/1", data={"seal": seal(page.text), "text": "tie", "quality": "left"}).url.path == "/pair/2"
    )
    assert asked.owner.votes()["choice"].to_list() == ["left", "tie"]  # quality before text


def test_a_study_that_is_not_reviewed_is_not_open(tmp_path, monkeypatch):
    asked = Asked(tmp_path / "s", monkeypatch, review=True)
    assert "Not open yet" in join(visitor(asked)).text


# --- Nothing tells which model made an image --------------------------------------------------------------------------


def test_pages_and_headers_do_not_tell_the_models(asked, client):
    answers = [client.get("/"), page := join(client)]
    pictures = [client.get(one) for one in re.findall(r'src="(/picture/[^"]+)"', page.text)]
    answers += [client.get("/me"), client.get("/study.css"), client.get("/keys.js")]
    for answer in answers:
        assert "one-step" not in answer.text
        assert "teacher-35" not in answer.text
        assert "model" not in answer.text
    names = [set(one.headers) for one in pictures]
    assert names[0] == names[1]
    assert not {"last-modified", "etag", "server"} & names[0]
    differing = [name for name in names[0] if pictures[0].headers[name] != pictures[1].headers[name]]
    assert set(differing) <= {"content-length"}
    assert not re.findall(r'(?:src|href)="(?!/)', "".join(answer.text for answer in answers))  # nothing from elsewhere


# --- Attacks ----------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("place", ["0", "5", "99999999999999999999", "-1", "1.5", "x"])
def test_other_places_have_no_pair(asked, client, place):
    page = join(client)
    answer = client.post(f"/pair/{place}", data={"seal": seal(page.text), "overall": "left"})
    assert answer.status_code == 404 or answer.url.path == "/pair/1"
    assert client.get(f"/pair/{place}").url.path in ("/pair/1", f"/pair/{place}")
    assert asked.owner.votes().height == 0


def test_participants_cannot_reach_each_others_answers(asked, client):
    join(client)
    other = visitor(asked)
    page = join(other)
    other.post("/pair/1", data={"seal": seal(page.text), "overall": "left"})
    assert "your answer" in other.get("/pair/1").text
    assert "your answer" not in client.get("/pair/1").text
    made_up = visitor(asked)
    for token in ("x" * 32, "1", "' OR 1=1 --", "../../x"):
        made_up.cookies.set(COOKIE, token, domain="study.test")
        assert made_up.get("/pair/1").url.path == "/"


def test_a_prompt_is_text(tmp_path):
    drafts = [Draft("<script>alert(1)</script>", noise(1), noise(2))]
    folder = StudyFolder.create(tmp_path / "s", Settings(title="<b>x</b>"), drafts)
    database = Database(folder.database, folder.settings.identity)
    page = join(TestClient(application(folder, database)))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.text
    assert "<b>x" not in page.text


# --- The owner --------------------------------------------------------------------------------------------------------


def test_the_owners_pages_need_the_token(asked, client):
    join(client)
    paths = ("/owner", "/owner/votes.csv", "/owner/votes.parquet")
    assert [client.get(path).status_code for path in paths] == [401, 403, 403]
    assert client.post("/owner/pair/1", data={"kept": "no", "seal": "0" * 64}).status_code == 403
    assert asked.owner.reviews() == {}
    for token in ("", "x", asked.folder.token[:-1]):
        assert client.get("/owner", params={"token": token}).status_code == 403
    client.cookies.set(owner_pages.COOKIE, asked.folder.token, domain="study.test")  # the cookie is not the token
    assert client.get("/owner").status_code == 401


def test_guessing_the_token_is_slow(asked, client):
    page = client.get("/owner")
    tries = [client.post("/owner/enter", data={"seal": seal(page.text), "token": str(k)}) for k in range(12)]
    assert [answer.status_code for answer in tries] == [403] * 10 + [429] * 2
    assert enter(client, asked).status_code == 429


def test_review_by_the_owner(asked, client):
    page = client.get("/owner")
    page = client.post("/owner/enter", data={"seal": seal(page.text), "token": f" {asked.folder.token}\n"})
    assert page.url.path == "/owner"
    assert page.text.count("Not reviewed.") == 4
    assert page.text.count('src="/picture/') == 8
    assert "one-step" not in page.text  # whoever reviews does not know whose is which
    page = client.post("/owner/pair/2", data={"seal": seal(page.text), "kept": "no"})
    page = client.post("/owner/pair/3", data={"seal": seal(page.text), "kept": "yes"})
    assert (page.text.count("Dropped."), page.text.count("Kept.")) == (1, 1)
    assert asked.owner.reviews() == {2: False, 3: True}
    assert client.post("/owner/pair/9", data={"seal": seal(page.text), "kept": "no"}).status_code == 404
    assert client.post("/owner/pair/1", data={"seal": seal(page.text), "kept": "?"}).status_code == 400
    guest = visitor(asked)
    assert "of 3" in join(guest).text


def test_votes_are_taken_away(asked, client):
    asked.answer_all("ann")
    enter(client, asked)
    csv, parquet = client.get("/owner/votes.csv"), client.get("/owner/votes.parquet")
    votes = asked.owner.votes()
    assert pl.read_parquet(io.BytesIO(parquet.content)).equals(votes)
    assert pl.read_csv(io.BytesIO(csv.content), try_parse_dates=True).drop("seconds").equals(votes.drop("seconds"))
    assert csv.headers["Content-Disposition"] == 'attachment; filename="votes.csv"'
