"""What a study's votes say: every vote counted where it belongs, by hand and by command."""

import io
import json
import socket

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import pytest
from PIL import Image
from studies import Asked, a_study

from simdistill.cli import main
from simdistill.study.bars import COLOURS, bars, whole_percents
from simdistill.study.estimates import agreement
from simdistill.study.owner import COLUMNS
from simdistill.study.results import tell
from simdistill.study.settings import Settings
from simdistill.web.serving import address


def table(rows):
    """Votes as (participant, pair, winner, left), of prompts p1, p2, …; a winner in capitals is of a check."""
    return pl.DataFrame(
        [
            {
                "participant": participant,
                "place": place,
                "pair": pair,
                "prompt": f"p{pair}",
                "check": winner.isupper(),
                "repetition": repetition,
                "question": "overall",
                "left": left,
                "choice": "tie" if winner == "tie" else "left" if winner.lower() == left else "right",
                "winner": winner.lower(),
                "seconds": float(place),
                "at": None,
            }
            for place, (participant, pair, winner, left, repetition) in enumerate(rows, 1)
        ],
        schema=COLUMNS,
    )


VOTES = table(
    [
        (1, 1, "a", "a", 0),
        (1, 2, "a", "b", 0),
        (1, 3, "b", "b", 0),
        (1, 1, "b", "a", 1),
        (1, 9, "A", "b", 0),
        (2, 1, "a", "b", 0),
        (2, 2, "tie", "a", 0),
        (2, 3, "a", "a", 0),
        (2, 2, "tie", "a", 1),
        (2, 9, "B", "b", 0),
    ]
)


def test_every_vote_is_counted_where_it_belongs():
    results = tell(VOTES, Settings(tie=True))
    found = results["questions"]["overall"]
    assert (found["votes"], found["ties"]) == (6, 1)
    assert (found["preference"]["wins"], found["preference"]["votes"], found["preference"]["rate"]) == (4, 5, 0.8)
    assert (found["position"]["wins"], found["position"]["votes"]) == (3, 5)
    assert (found["consistency"]["wins"], found["consistency"]["votes"]) == (1, 2)
    assert found["majorities"]["participants"]["wins"] == 2
    assert (found["majorities"]["prompts"]["wins"], found["majorities"]["prompts"]["votes"]) == (2, 2)  # p3 is even
    assert [(row["prompt"], row["a"], row["b"], row["tie"]) for row in found["by_prompt"]] == [
        ("p1", 2, 0, 0),
        ("p2", 1, 0, 1),
        ("p3", 1, 1, 0),
    ]
    assert results["attention"] == {"checks": 2, "failed": 1, "participants": [2]}
    assert [(row["participant"], row["failed"], row["left"], row["seconds"]) for row in results["by_participant"]] == [
        (1, 0, 2, 2.0),
        (2, 1, 1, 7.0),
    ]
    assert found["agreement"] == pytest.approx(agreement([["a", "a"], ["a", "tie"], ["b", "a"]]))
    alone = tell(VOTES, Settings(tie=True), attentive=True)
    assert (alone["left_out"], alone["participants"], alone["questions"]["overall"]["preference"]["wins"]) == (
        [2],
        1,
        2,
    )
    assert json.loads(json.dumps(results))["questions"]["overall"]["bootstrap"] == list(found["bootstrap"])


def test_a_check_is_failed_once_whatever_the_number_of_questions():
    def asked(question, *winners):
        rows = [(who, 9, winner, "a", 0) for who, winner in enumerate(winners, 1)]
        return table(rows).with_columns(pl.lit(question).alias("question"), pl.lit(True).alias("check"))

    votes = pl.concat([asked("text", "A", "B", "B", "tie"), asked("quality", "A", "A", "B", "A")])
    results = tell(votes, Settings(questions="two", tie=True))
    # one lapse in two questions, two lapses, and no difference seen between a picture and noise
    assert results["attention"] == {"checks": 4, "failed": 3, "participants": [2, 3, 4]}
    assert tell(votes, Settings(questions="two", tie=True), attentive=True)["participants"] == 1


def test_no_votes_are_no_error():
    results = tell(table([]), Settings(questions="two"))
    assert results["participants"] == 0
    assert results["questions"]["text"]["preference"]["rate"] is None
    assert bars(results).startswith(b"\x89PNG")


def test_the_bars_are_as_long_as_the_shares():
    votes = table([(k, 1, "a" if k < 6 else "b", "a", 0) for k in range(8)])
    image = np.asarray(Image.open(io.BytesIO(bars(tell(votes, Settings())))).convert("RGB")).astype(int)
    lengths = {}
    for side in ("a", "b"):
        wanted = [int(COLOURS[side][k : k + 2], 16) for k in (1, 3, 5)]
        lengths[side] = (np.abs(image - wanted).sum(2) < 10).sum(1).max()
    assert lengths["a"] / lengths["b"] == pytest.approx(3, rel=0.05)
    assert bars(tell(votes, Settings()), "pdf").startswith(b"%PDF")


@pytest.mark.parametrize(
    ("counts", "percents"),
    [((1, 1, 1), [34, 33, 33]), ((1, 0, 7), [13, 0, 87]), ((2, 3, 3), [25, 38, 37]), ((0, 0, 5), [0, 0, 100])],
)
def test_printed_shares_add_up(counts, percents):
    assert whole_percents(counts) == percents
    assert sum(percents) == 100


def test_the_picture_says_how_many_votes_and_the_interval_with_ties_too():
    rows = [(who, pair, "tie" if pair == 3 else "a", "a", 0) for who in range(4) for pair in (1, 2, 3)]
    rows[0] = (0, 1, "b", "a", 0)
    results = tell(table(rows), Settings(tie=True))
    low, high = results["questions"]["overall"]["bootstrap"]
    said = f"n = 12; student preferred in 87.5 % of non-tied votes ({100 * low:.1f} to {100 * high:.1f} %)"
    with plt.rc_context({"svg.fonttype": "none"}):
        assert said in bars(results, "svg").decode()
        without = bars(tell(table(rows).filter(pl.col("winner") != "tie"), Settings()), "svg").decode()
    dashes = "stroke-dasharray"
    assert (bars(results, "svg").decode().count(dashes), without.count(dashes)) == (0, 1)  # half, where it means it
    assert "simulated" not in without
    with plt.rc_context({"svg.fonttype": "none"}):
        assert "simulated votes" in bars(tell(table(rows), Settings(), simulated=True), "svg").decode()


def test_rehearsal_and_results_by_command(tmp_path, monkeypatch, capsys):
    asked = Asked(tmp_path / "s", monkeypatch, pairs=6, checks=1, repeats=2)
    study = str(asked.folder.path)
    assert main(["study", "simulate", study, "--participants", "8", "--preference", "0.8", "--json"]) == 0
    simulated = json.loads(capsys.readouterr().out)
    assert simulated["simulated"] is True
    assert simulated["questions"]["overall"]["votes"] == 48
    assert main(["study", "results", study, "--rehearsal", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == simulated
    assert main(["study", "simulate", study, "--participants", "8", "--preference", "0.8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == simulated  # anew, and not more
    assert main(["study", "results", study, "--rehearsal", "--votes", str(tmp_path / "v.csv")]) == 0
    assert capsys.readouterr().out.startswith("simulated votes:\nstudent preferred to teacher: 8 participants\n")
    assert pl.read_csv(tmp_path / "v.csv")["simulated"].to_list() == [True] * (6 + 1 + 2) * 8
    asked.answer_all("ann")
    words = ["--votes", str(tmp_path / "v.parquet"), "--picture", str(tmp_path / "bars.svg")]
    assert main(["study", "results", study, *words]) == 0
    shown = capsys.readouterr().out
    assert "student preferred to teacher: 1 participant\n" in shown
    assert "simulated" not in shown
    assert pl.read_parquet(tmp_path / "v.parquet").equals(asked.owner.votes())
    assert b"<svg" in (tmp_path / "bars.svg").read_bytes()
    assert main(["study", "simulate", study, "--power", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert (planned["prompts"], planned["pairs"]) == (6, 6)
    assert list(planned["power"]) == ["10", "20", "30", "50", "100"]
    assert main(["study", "simulate", study, "--power", "--participants", "17"]) == 0
    assert "% of studies with 17 participants\n" in capsys.readouterr().out


def test_participants_are_left_out_by_number(tmp_path, monkeypatch, capsys, refused):
    asked = Asked(tmp_path / "s", monkeypatch)
    for token in ("ann", "bob", "eve"):
        asked.answer_all(token)
    ann, bob, eve = (asked.number(token) for token in ("ann", "bob", "eve"))
    asked.owner.exclude(ann, excluded=True)
    words = ["study", "results", str(asked.folder.path), "--votes", str(tmp_path / "v.csv")]
    assert main([*words, "--exclude", str(eve)]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [
        "student preferred to teacher: 1 participant",
        f"excluded by the owner: participants {min(ann, eve)}, {max(ann, eve)}",
    ]
    assert pl.read_csv(tmp_path / "v.csv")["participant"].to_list() == [bob] * 4
    assert "--exclude = '4': must be numbers of participants" in refused(*words, "--exclude", "4")


def test_the_votes_that_are_written_are_those_that_count(tmp_path, monkeypatch, capsys):
    asked = Asked(tmp_path / "s", monkeypatch, pairs=3, checks=1)
    real = next(pair.a for pair in asked.folder.pairs if pair.check)
    asked.answer_all("ann", lambda shown: "right" if shown.pictures[1] == real else "left")
    asked.answer_all("bob", lambda shown: "left" if shown.pictures[1] == real else "right")
    words = ["study", "results", str(asked.folder.path), "--attentive", "--votes", str(tmp_path / "v.csv"), "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["left_out"] == [asked.number("bob")]
    assert pl.read_csv(tmp_path / "v.csv")["participant"].to_list() == [asked.number("ann")] * 4


def test_names_are_shown_as_they_are(tmp_path, capsys):
    names = {"a": "[bold]run_$1_$2[/x]", "b": "the other one, of a name that is longer than there is room for"}
    study = str(a_study(tmp_path / "s", **names).path)
    words = ["study", "results", study, "--rehearsal", "--picture", str(tmp_path / "bars.svg")]
    assert main(["study", "simulate", study, "--participants", "3"]) == 0
    with plt.rc_context({"svg.fonttype": "none"}):
        assert main(words) == 0
    shown = capsys.readouterr().out
    assert shown.count("participants with a majority for [bold]run_$1_$2[/x]") == 2
    picture = (tmp_path / "bars.svg").read_text()
    assert picture.count("[bold]run_$1_$2[/x]") == 2  # at its colour, and with its rate
    assert picture.count(names["b"]) == 1


def test_a_rehearsal_is_of_the_pairs_that_people_would_see(tmp_path, monkeypatch, capsys, refused):
    asked = Asked(tmp_path / "s", monkeypatch, pairs=6, checks=1, review=True)
    study = str(asked.folder.path)
    assert "pairs to show = 0: must be at least 1" in refused("study", "simulate", study)
    assert "--rehearsal = True: must be left out" in refused("study", "results", study, "--rehearsal")
    for number in (1, 3, 4, 7):
        asked.owner.review(number, kept=True)
    asked.owner.review(2, kept=False)
    assert main(["study", "simulate", study, "--participants", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["questions"]["overall"]["votes"] == 15
    assert [row["prompt"] for row in found["questions"]["overall"]["by_prompt"]] == ["prompt 0", "prompt 2", "prompt 3"]
    assert found["attention"]["checks"] == 5
    assert main(["study", "simulate", study, "--power", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["prompts"] == 3


def test_bad_requests(tmp_path, refused):
    study = a_study(tmp_path / "s").path
    assert "--votes = 'x.txt': must be a .csv or .parquet" in refused("study", "results", study, "--votes", "x.txt")
    assert "not a study's folder" in refused("study", "results", tmp_path)
    assert "--participants = 0: must be at least 1" in refused("study", "simulate", study, "--participants", "0")
    assert "--preference = 0.0: must be above 0" in refused("study", "simulate", study, "--preference", "0")
    assert "--tie = 0.2: must be 0: " in refused("study", "simulate", study, "--tie", "0.2")
    assert "--prompts-deviation = -1.0: must" in refused("study", "simulate", study, "--prompts-deviation", "-1")
    assert "--database = 'nonsense': must be a URL" in refused("study", "results", study, "--database", "nonsense")
    typo = f"sqlite:///{tmp_path / 'typo.sqlite3'}"
    for verb in ("results", "simulate"):
        assert f"--database = '{typo}': must be an existing" in refused("study", verb, study, "--database", typo)
    assert not (tmp_path / "typo.sqlite3").exists()
    for name, value in {"position": "nan", "participants-deviation": "inf", "seed": "-1"}.items():
        assert f"--{name} = {value}: must be" in refused("study", "simulate", study, f"--{name}", value)
    assert "--port = 0: must be in" in refused("study", "serve", study, "--port", "0")
    assert "--port = 'abc': must be a whole number" in refused("study", "serve", study, "--port", "abc")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"--port = {port}: must be a free port" in refused("study", "serve", study, "--port", str(port))
    for host in ("192.0.2.1", "no.such.host.invalid"):
        message = refused("study", "serve", study, "--host", host)
        assert f"--host = '{host}': must be an address of this machine" in message


def test_links_that_others_can_open():
    assert address("127.0.0.1", 80) == "http://127.0.0.1:80/"
    assert address("::1", 8767) == "http://[::1]:8767/"
    assert address("0.0.0.0", 8767) == f"http://{socket.gethostname()}:8767/"
