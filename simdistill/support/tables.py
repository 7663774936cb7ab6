"""Tables that spreadsheets open: texts of strangers must not become formulas there."""

import polars as pl

FORMULA = r"^([=+\-@\t\r])"
"""How a cell begins that a spreadsheet would compute."""
CONTROLS = r"[\x00-\x08\x0b-\x1f\x7f-\x9f]"


def without_formulas(table: pl.DataFrame) -> pl.DataFrame:
    """The table with an apostrophe before texts that a spreadsheet would compute, and without control characters."""
    return table.with_columns(pl.col(pl.String).str.replace(FORMULA, "'$1").str.replace_all(CONTROLS, ""))
