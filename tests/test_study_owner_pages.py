"""The owner's pages: closed without the token, the review, the votes taken away."""

import io

import polars as pl
from visitors import join, seal, visitor

from simdistill.study import owner_pages


def enter(client, asked):
    return client.get("/owner", params={"token": asked.folder.token})


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
