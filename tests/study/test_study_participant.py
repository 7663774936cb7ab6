"""The participants' pages: from consent to thanks, back and again, and nothing that tells the models."""

import io
import re

import numpy as np
from PIL import Image
from studies import Asked, noise
from visitors import cookie, follow, join, seal, visitor


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
    assert "Continue here?" in other.get(link).text
    assert other.get("/pair/1").url.path == "/"  # nothing has changed yet
    assert follow(other, link).url.path == "/pair/2"
    assert other.get(link).url.path == "/pair/2"  # its own
    assert other.get("/pair/1").status_code == 200
    assert asked.owner.participants() == 1


def test_without_consent_nobody_takes_part(asked, client):
    page = client.get("/")
    refused = client.post("/join", data={"seal": seal(page.text)})
    assert refused.status_code == 400
    assert "Tick the box if you agree" in refused.text
    assert asked.owner.participants() == 0
    for path in ("/pair/1", "/thanks", "/me", "/join"):
        assert client.get(path).url.path == "/"


def test_deleted_on_request(asked, client):
    page = join(client)
    client.post("/pair/1", data={"seal": seal(page.text), "overall": "left"})
    page = client.post("/forget", data={"seal": seal(client.get("/me").text)})
    assert "Your answers are deleted" in page.text
    assert page.url.path == "/forgotten"
    assert client.get("/forgotten").text == page.text  # loaded again
    gone = client.post("/pair/2", data={"seal": "0" * 64, "overall": "left"})  # in another tab
    assert gone.status_code == 403
    assert "You are not taking part" in gone.text
    assert cookie(asked) not in client.cookies
    assert (asked.owner.participants(), asked.owner.votes().height) == (0, 0)
    assert "agree to take part" in client.get("/").text


def test_another_person_at_the_same_computer(asked, client):
    page = join(client)
    for number in range(1, 5):
        page = client.post(f"/pair/{number}", data={"seal": seal(page.text), "overall": "left"})
    assert page.url.path == "/thanks"
    (link,) = re.findall(r"<code>http://study.test(/resume/\S+)</code>", client.get("/me").text)
    page = client.post("/leave", data={"seal": seal(page.text)})
    assert "agree to take part" in page.text
    assert join(client).url.path == "/pair/1"
    assert (asked.owner.participants(), asked.owner.votes().height) == (2, 4)
    asks = client.get(link)
    assert "already taking part in this browser" in asks.text
    assert client.get("/").url.path == "/pair/1"  # a link that somebody sent replaces nobody
    assert client.post(link, data={"seal": "0" * 64}).status_code == 403
    assert follow(client, link).url.path == "/thanks"


def test_two_studies_on_one_host_have_cookies_of_their_own(tmp_path, monkeypatch):
    studies = [Asked(tmp_path / name, monkeypatch) for name in ("one", "two")]
    names = [{*client.cookies} for client in map(visitor, studies) if join(client)]
    assert names == [{cookie(one)} for one in studies]
    assert names[0].isdisjoint(names[1])


def test_who_keeps_no_cookies_is_told_so(asked):
    form = {"seal": seal(visitor(asked).get("/").text), "consent": "yes"}
    refused = visitor(asked).post("/join", data=form)
    assert refused.status_code == 403
    assert "This site needs cookies" in refused.text
    assert asked.owner.participants() == 0


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
    client = visitor(asked)
    assert "Not open yet" in client.get("/").text
    asked.owner.review(2, kept=True)
    assert "You will see 1 pair of images" in client.get("/").text
    assert "Pair 1 of 1" in join(client).text


def test_consent_is_to_as_many_pages_as_come(tmp_path, monkeypatch):
    asked = Asked(tmp_path / "s", monkeypatch, pairs=6, checks=2, repeats=5, review=True)
    client = visitor(asked)
    for number in range(1, 8):  # one of the checks is never kept
        asked.owner.review(number, kept=number != 6)
    assert "You will see 11 pairs of images" in client.get("/").text
    assert "Pair 1 of 11" in join(client).text


def test_pictures_have_their_place_before_they_are_loaded(client):
    assert re.findall(r'width="(\d+)" height="(\d+)"', join(client).text) == [("24", "16")] * 2


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
