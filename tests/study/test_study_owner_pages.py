"""The owner's pages: closed without the token, the review, the votes taken away."""

import io
import re

import polars as pl
from studies import Asked, noise
from visitors import cookie, join, seal, visitor

from simdistill.cli import main
from simdistill.study.folder import Draft


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
    client.cookies.set(cookie(asked, "owner"), asked.folder.token, domain="study.test")  # the cookie is not the token
    assert client.get("/owner").status_code == 401


def test_guessing_the_token_is_slow(asked, client):
    page = client.get("/owner")
    tries = [client.post("/owner/enter", data={"seal": seal(page.text), "token": str(k)}) for k in range(12)]
    assert [answer.status_code for answer in tries] == [403] * 10 + [429] * 2
    assert tries[-1].headers["Retry-After"] == "60"
    assert enter(client, asked).status_code == 200  # the right token is not counted


def test_review_by_the_owner(asked, client):
    page = client.get("/owner")
    page = client.post("/owner/enter", data={"seal": seal(page.text), "token": f" {asked.folder.token}\n"})
    assert page.url.path == "/owner"
    assert page.text.count("Not reviewed.") == 4
    assert page.text.count('src="/owner/picture/') == 8
    assert "one-step" not in page.text  # whoever reviews does not know whose is which
    page = client.post("/owner/pair/2", data={"seal": seal(page.text), "kept": "no"})
    page = client.post("/owner/pair/3", data={"seal": seal(page.text), "kept": "yes"})
    assert (page.text.count("Dropped."), page.text.count("Kept.")) == (1, 1)
    assert asked.owner.reviews() == {2: False, 3: True}
    assert client.post("/owner/pair/9", data={"seal": seal(page.text), "kept": "no"}).status_code == 404
    assert client.post("/owner/pair/1", data={"seal": seal(page.text), "kept": "?"}).status_code == 400
    guest = visitor(asked)
    assert "of 3" in join(guest).text


def test_all_that_are_undecided_are_kept(asked, client):
    asked.owner.review(2, kept=False)
    enter(client, asked)
    page = client.get("/owner")
    assert "Keep all 3 undecided" in page.text
    page = client.post("/owner/pairs", data={"seal": seal(page.text)})
    assert asked.owner.reviews() == {1: True, 2: False, 3: True, 4: True}
    assert "undecided" not in page.text
    assert page.text.count('class="chosen" aria-pressed="true">Keep<') == 3
    assert page.text.count('class="chosen" aria-pressed="true">Drop<') == 1
    assert page.text.count('width="24" height="16" class="small"') == 8


def test_only_small_pictures_are_drawn_with_sharp_edges(tmp_path, monkeypatch):
    pictures = [Draft("x", noise(k, (side, side)), noise(9, (side, side))) for k, side in enumerate((64, 65))]
    monkeypatch.setattr("studies.drafts", lambda count: pictures)
    asked = Asked(tmp_path / "s", monkeypatch)
    client = visitor(asked)
    enter(client, asked)
    assert re.findall(r'height="(\d+)"( class="small")?', client.get("/owner").text) == [
        ("64", ' class="small"'),
        ("64", ' class="small"'),
        ("65", ""),
        ("65", ""),
    ]


def test_results_say_what_the_command_says(tmp_path, monkeypatch, capsys):
    asked = Asked(tmp_path / "s", monkeypatch, pairs=6, repeats=2)
    client = visitor(asked)
    enter(client, asked)
    page = client.get("/owner/results")
    assert "No votes yet." in page.text
    assert "<table>" not in page.text
    for k, token in enumerate(("ann", "bob", "eve")):
        asked.answer_all(token, lambda shown, k=k: "left" if shown.prompt > f"prompt {k}" else "right")
    assert main(["study", "results", str(asked.folder.path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = re.findall(r'<tr><th scope="row">([^<]+)</th><td>([^<]+)</td></tr>', client.get("/owner/results").text)
    assert len(cells) == 11
    shown = {line.replace(" ", "") for line in lines}
    values = [value.replace("−", "-").removeprefix("p = ").replace(" ", "") for _, value in cells]
    missing = [value for value in values if not any(line.endswith(value) for line in shown)]
    assert missing == []


def test_votes_are_taken_away(asked, client):
    asked.answer_all("ann")
    enter(client, asked)
    csv, parquet = client.get("/owner/votes.csv"), client.get("/owner/votes.parquet")
    votes = asked.owner.votes()
    assert pl.read_parquet(io.BytesIO(parquet.content)).equals(votes)
    assert pl.read_csv(io.BytesIO(csv.content), try_parse_dates=True).drop("seconds").equals(votes.drop("seconds"))
    assert csv.headers["Content-Disposition"] == 'attachment; filename="votes.csv"'


def test_dropped_pictures_are_the_owners_alone(asked, client):
    join(client)
    asked.owner.review(2, kept=False)
    dropped, kept = asked.folder.pairs[1].a, asked.folder.pairs[2].a
    assert [client.get(f"/picture/{name}").status_code for name in (dropped, kept)] == [404, 200]
    assert client.get(f"/owner/picture/{dropped}").status_code == 403
    enter(client, asked)
    assert client.get(f"/owner/picture/{dropped}").content == asked.folder.picture(dropped)
    assert client.get("/owner/picture/x.png").status_code == 404
    assert client.get(f"/picture/{dropped}").status_code == 404


def test_a_participant_is_left_out_and_deleted(asked, client):
    for token in ("ann", "bob"):
        asked.answer_all(token)
    asked.ballot.join("eve")
    ann, bob, eve = (asked.number(token) for token in ("ann", "bob", "eve"))
    enter(client, asked)
    page = client.get("/owner/results")
    assert page.text.count("Exclude</button>") == 3
    assert page.text.count("no counted votes yet") == 1
    form = {"seal": seal(page.text)}
    page = client.post(f"/owner/participant/{bob}", data=form | {"excluded": "yes"})
    assert page.url.path == "/owner/results"
    assert page.text.count("Include</button>") == 1
    assert asked.owner.excluded() == [bob]
    assert asked.owner.votes()["participant"].unique().to_list() == [ann]
    client.post(f"/owner/participant/{bob}", data=form | {"excluded": "no"})
    assert asked.owner.votes().height == 8
    for token in ("ann", "bob"):
        asked.owner.exclude(asked.number(token), excluded=True)
    assert "All participants with votes are excluded." in client.get("/owner/results").text
    for token in ("ann", "bob"):
        asked.owner.exclude(asked.number(token), excluded=False)
    assert client.post("/owner/participant/9", data=form | {"excluded": "no"}).status_code == 404
    assert client.post(f"/owner/participant/{bob}", data=form | {"excluded": "?"}).status_code == 400
    asking = client.get(f"/owner/participant/{bob}/delete")
    assert f"Delete participant {bob}?" in asking.text
    assert asked.owner.votes().height == 8  # nothing is deleted before the answer
    client.post(f"/owner/participant/{bob}/delete", data={"seal": seal(asking.text)})
    assert ({*asked.owner.people()}, asked.owner.votes().height) == ({ann, eve}, 4)
    assert asked.ballot.progress("bob") is None
    assert client.get(f"/owner/participant/{bob}/delete").status_code == 404
    guest = visitor(asked)
    join(guest)
    assert guest.get(f"/owner/participant/{ann}/delete").status_code == 403
    assert guest.post(f"/owner/participant/{ann}/delete", data=form).status_code == 403
    assert ann in asked.owner.people()
