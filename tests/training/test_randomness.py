"""Random numbers are functions of their place: whose row, which update, which iteration."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from simdistill.training.randomness import normal_rows, stream


@given(st.integers(0, 300), st.integers(1, 200))
def test_rows_of_the_table_do_not_depend_on_who_draws_them(first, n):
    table = normal_rows(slice(0, 512), (3,), 7, "z")
    assert torch.equal(normal_rows(slice(first, first + n), (3,), 7, "z"), table[first : first + n])


def test_the_table_is_standard_normal():
    table = normal_rows(slice(0, 20_000), (4,), 0, "eps")
    assert table.mean().abs() < 4 / 80_000**0.5
    assert (table.var() - 1).abs() < 4 * (2 / 80_000) ** 0.5
    assert not torch.equal(table[:64], table[64:128])
    assert not torch.equal(table[:64], normal_rows(slice(0, 64), (4,), 1, "eps"))
    assert not torch.equal(table[:64], normal_rows(slice(0, 64), (4,), 0, "z"))


def test_streams_are_reproducible_and_distinct():
    draws = {
        position: torch.randn(4, generator=stream(*position)).tolist()
        for position in [(0, 0), (0, 1), (1, 0), (1, 1), (0, 10), (10, 0)]
    }
    assert len({tuple(d) for d in draws.values()}) == len(draws)
    assert torch.randn(4, generator=stream(1, 1)).tolist() == draws[1, 1]
