"""What participants do: orders by chance, votes that count once and can be changed, nothing left of the forgotten."""

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from studies import Asked

from simdistill.study import ballot
from simdistill.study.ballot import NoPairError, NotShownError, Progress, arranged, digest
from simdistill.study.folder import Pair


def pairs(count, checks=0):
    return [Pair(k, "", "", "", k > count) for k in range(1, count + checks + 1)]


def test_orders_and_sides_are_random():
    rng = random.Random(0)
    orders = [arranged(pairs(4), 0, rng) for _ in range(4000)]
    assert all([one.place for one in order] == [1, 2, 3, 4] for order in orders)
    seen = Counter(tuple(one.pair for one in order) for order in orders)
    assert len(seen) == 24
    assert max(abs(count - 4000 / 24) for count in seen.values()) < 5 * (4000 / 24) ** 0.5
    left = sum(one.left == "a" for order in orders for one in order)
    assert abs(left - 8000) < 4 * 4000**0.5  # 16,000 coins, σ = 63


def test_repeats_come_in_the_second_half_and_checks_once():
    rng = random.Random(0)
    for _ in range(200):
        order = arranged(pairs(8, checks=2), 3, rng)
        assert len(order) == 13
        counts = Counter(one.pair for one in order)
        assert sorted(counts.values()) == [1] * 7 + [2] * 3
        assert counts[9] == counts[10] == 1
        first = {one.pair: one.place for one in order if one.repetition == 0}
        again = {one.pair: one.place for one in order if one.repetition == 1}
        assert all(first[pair] <= 5 < place for pair, place in again.items())
    assert len(arranged(pairs(3), 9, rng)) == 6  # no more than there are


@given(st.integers(1, 9), st.integers(0, 9), st.integers(0, 3), st.integers(0, 2**32))
def test_a_second_showing_is_never_next_to_the_first(count, repeats, checks, seed):
    repeats, checks = min(repeats, count), min(checks, count)
    order = arranged(pairs(count, checks), repeats, random.Random(seed))
    assert [one.place for one in order] == [*range(1, count + checks + repeats + 1)]
    assert Counter(one.repetition for one in order)[1] == repeats
    assert sorted(one.pair for one in order if one.repetition == 0) == [*range(1, count + checks + 1)]
    before = set()
    for one in order:
        assert one.repetition == (one.pair in before)
        before.add(one.pair)
    running = [one.pair == after.pair for one, after in pairwise(order)]
    assert any(running) == (count + checks == 1 == repeats)


def test_a_vote_counts_once_and_can_be_changed(asked):
    asked.ballot.join("ann")
    asked.ballot.join("ann")  # a double click
    assert asked.owner.participants() == 1
    for _ in range(3):
        assert asked.answer("ann", 1)
    first = asked.owner.votes()
    assert first.height == 1
    assert asked.answer("ann", 1, "left")
    assert asked.owner.votes().equals(first)  # nor does its time change
    assert asked.answer("ann", 1, "right")
    (vote,) = asked.owner.votes().rows(named=True)
    assert vote["choice"] == "right"
    assert asked.ballot.show("ann", 1).answers == {"overall": "right"}
    assert asked.ballot.progress("ann") == Progress([1, 2, 3, 4], [2, 3, 4])


def test_who_won_is_told_by_the_side(asked):
    shown = {}

    def choose(one):
        shown[one.place] = one
        return "left" if one.place % 2 else "right"

    asked.answer_all("ann", choose)
    files = {pair.prompt: pair for pair in asked.folder.pairs}
    for vote in asked.owner.votes().rows(named=True):
        one, pair = shown[vote["place"]], files[vote["prompt"]]
        chosen = one.pictures[0 if one.place % 2 else 1]
        assert vote["winner"] == ("a" if chosen == pair.a else "b")
        assert vote["pair"] == pair.number
        assert set(one.pictures) == {pair.a, pair.b}


def test_participants_see_only_their_own(asked):
    asked.ballot.join("ann")
    asked.ballot.join("bob")
    asked.answer("ann", 1)
    assert asked.ballot.progress("bob").open == [1, 2, 3, 4]
    assert asked.ballot.show("bob", 1).answers == {}
    assert asked.ballot.show("eve", 1) is None
    assert asked.ballot.progress("eve") is None
    with pytest.raises(NotShownError, match="You have not joined"):
        asked.ballot.vote("eve", 1, {"overall": "left"})
    assert asked.ballot.show("ann", 99) is None
    with pytest.raises(NoPairError, match="There is no such pair"):
        asked.answer("ann", 99)
    with pytest.raises(NotShownError, match="You have not seen this pair"):
        asked.ballot.vote("bob", 2, {"overall": "left"})


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({}, r"answers = \[\]: must be answers to overall"),
        ({"overall": "tie"}, "overall = 'tie': must be one of left, right"),
        ({"overall": "left' OR 1=1"}, "must be one of left, right"),
        ({"overall": "left", "quality": "left"}, "must be answers to overall"),
    ],
)
def test_other_answers_are_refused(asked, answers, message):
    asked.ballot.join("ann")
    asked.ballot.show("ann", 1)
    with pytest.raises(ValueError, match=message):
        asked.ballot.vote("ann", 1, answers)
    assert asked.owner.votes().height == 0


def test_two_questions_and_ties(tmp_path, monkeypatch):
    asked = Asked(tmp_path / "s", monkeypatch, questions="two", tie=True)
    asked.ballot.join("ann")
    asked.ballot.show("ann", 1)
    assert asked.ballot.vote("ann", 1, {"text": "tie", "quality": "left"})
    votes = asked.owner.votes()
    assert dict(votes.select("question", "choice").iter_rows()) == {"text": "tie", "quality": "left"}
    assert asked.ballot.vote("ann", 1, {"text": "right", "quality": "left"})
    assert dict(asked.owner.votes().select("question", "choice").iter_rows()) == {"text": "right", "quality": "left"}
    assert asked.ballot.progress("ann").open == [2, 3, 4]


def test_the_second_half_of_a_double_click_is_no_vote(asked, monkeypatch):
    monkeypatch.setattr(ballot, "TOO_SOON", 60.0)
    asked.ballot.join("ann")
    assert not asked.answer("ann", 1)
    assert asked.owner.votes().height == 0
    monkeypatch.setattr(ballot, "TOO_SOON", 0.0)
    assert asked.ballot.vote("ann", 1, {"overall": "left"})


def test_forgotten_means_deleted(asked):
    asked.answer_all("ann")
    asked.answer_all("bob")
    asked.ballot.forget("ann")
    assert asked.ballot.progress("ann") is None
    assert asked.rows("SELECT count(*), min(participant_id) FROM votes") == [(4, asked.number("bob"))]
    assert asked.rows("SELECT count(*) FROM presentations") == [(4,)]


def test_numbers_tell_nothing_and_are_not_given_again(asked):
    tokens = [f"token {k}" for k in range(40)]
    for token in tokens:
        asked.ballot.join(token)
    numbers = [asked.number(token) for token in tokens]
    assert all(10**6 <= number < 10**7 for number in numbers)
    assert numbers != sorted(numbers)
    last = max(numbers)  # which a database that counts would give to the next
    asked.owner.delete(last)
    asked.ballot.join("somebody new")
    assert last not in asked.owner.people()


def test_a_number_that_is_taken_is_drawn_again(tmp_path, monkeypatch):
    class Twice(random.Random):
        drawn = iter((1_234_567, 1_234_567, 7_654_321))

        def randrange(self, *bounds):
            return next(self.drawn)

    asked = Asked(tmp_path / "s", monkeypatch, rng=Twice(0))
    for token in ("ann", "bob"):
        asked.ballot.join(token)
    assert (asked.number("ann"), asked.number("bob")) == (1_234_567, 7_654_321)


def test_nothing_of_the_forgotten_is_in_any_file(asked):
    tokens = [f"token {k}" for k in range(60)]  # enough for several pages of an index
    for token in tokens:
        asked.answer_all(token)
    for token in tokens[::2]:
        asked.ballot.forget(token)
    asked.owner.delete(asked.number(tokens[1]))
    files = [file.read_bytes() for file in asked.folder.path.glob("votes.sqlite3*")]
    assert len(files) == 3  # the log's, too

    def found(token):
        return any(digest(token).encode() in content for content in files)

    assert [token for token in tokens if found(token)] == [token for k, token in enumerate(tokens) if k % 2 and k != 1]


def test_a_check_goes_with_the_pair_whose_picture_it_shows(tmp_path, monkeypatch):
    asked = Asked(tmp_path / "s", monkeypatch, checks=2)
    checks = [pair for pair in asked.folder.pairs if pair.check]
    assert [pair.of for pair in checks] == [1, 2]
    asked.answer_all("ann")
    asked.owner.review(1, kept=False)
    assert [pair.number for pair in asked.owner.shown()] == [2, 3, 4, 6]
    assert len(asked.ballot.progress("ann").places) == 4
    assert [asked.ballot.shows(pair.a) for pair in checks] == [False, True]


def test_dropped_pairs_are_neither_shown_nor_counted(asked):
    asked.answer_all("ann")
    asked.owner.review(2, kept=False)
    asked.owner.review(3, kept=True)
    assert asked.owner.votes()["pair"].sort().to_list() == [1, 3, 4]
    assert len(asked.ballot.progress("ann").places) == 3
    asked.ballot.join("bob")
    assert len(asked.ballot.progress("bob").places) == 3
    asked.owner.review(2, kept=True)
    assert asked.owner.votes().height == 4
    with pytest.raises(ValueError, match="pair = 5: must be in 1 … 4"):
        asked.owner.review(5, kept=True)


def test_a_reviewed_study_shows_what_was_kept(tmp_path, monkeypatch):
    asked = Asked(tmp_path / "s", monkeypatch, review=True)
    asked.ballot.join("ann")
    assert (asked.ballot.offered(), asked.ballot.progress("ann")) == (0, None)  # not open: come back later
    asked.owner.review(4, kept=True)
    asked.owner.review(1, kept=False)
    asked.ballot.join("ann")
    assert (asked.ballot.offered(), asked.ballot.progress("ann").places) == (1, [1])
    assert asked.ballot.show("ann", 1).prompt == "prompt 3"
