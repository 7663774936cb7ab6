"""Tables for spreadsheets."""

import polars as pl
import pytest

from simdistill.support.tables import without_formulas


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ('=HYPERLINK("http://x")', '\'=HYPERLINK("http://x")'),
        ("+1", "'+1"),
        ("-1+2", "'-1+2"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("a\x1b[31mb\x07", "a[31mb"),
        ("a cat, 2 = 1 + 1", "a cat, 2 = 1 + 1"),
        ("two\nlines", "two\nlines"),
        (None, None),
    ],
)
def test_texts_stay_texts(text, written):
    found = without_formulas(pl.DataFrame({"text": [text], "n": [-1]}, schema={"text": pl.String, "n": pl.Int64}))
    assert found.row(0) == (written, -1)


def test_a_table_without_texts_is_unchanged():
    table = pl.DataFrame({"n": [1, -2]})
    assert without_formulas(table).equals(table)
