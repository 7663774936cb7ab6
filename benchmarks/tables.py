"""Tables, to be printed or published between markers in a Markdown file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from rich.table import Table as RichTable


@dataclass(frozen=True)
class Table:
    """Rows of text under `columns`; `name` identifies its markers."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def rich(self) -> RichTable:
        """For the terminal."""
        table = RichTable(*self.columns, title=self.title, title_justify="left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """For the docs."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return f"**{self.title}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def publish(page: str, tables: Sequence[Table]) -> str:
    """The text `page` with every table between `<!-- its name -->` and `<!-- end -->`; `ValueError` without markers."""
    for table in tables:
        begin, end = f"<!-- {table.name} -->", "<!-- end -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        text = f"{begin}\n{table.markdown()}\n{end}"
        page, found = pattern.subn(lambda _, text=text: text, page)
        if found != 1:
            raise ValueError(f"{found} places for the table {table.name}: must be one, {begin} … {end}")
    return page


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median and quartiles as text."""
    if len(values) < 2:
        return f"{values[0]:.{digits}f}"
    low, _, high = quantiles(values, n=4, method="inclusive")
    return f"{median(values):.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"
