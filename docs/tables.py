"""`python -m docs.tables`: renew docs/tables.md from the package's docstrings and recipes."""

import ast
import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

from benchmarks.tables import Table, publish
from simdistill.comparison.grid import GRIDS
from simdistill.config.expressions import expression
from simdistill.config.recipes import RECIPES, Recipe
from simdistill.method.distances import DISTANCES

PAGE = Path(__file__).with_suffix(".md")
FORMULAS = re.compile(r"d\(y\) = (.+?), d'\(y\) = (.+?)(?=[.:]|, and| \[).*?\[Table 4, row (\d)\]", re.DOTALL)
PAPER = ["cifar10-uncond", "cifar10-cond", "pixart-512", "listing-1"]
OURS = "teacher checkpoint_minutes outside_range"
NOT_THE_PAPERS = {*OURS.split(), "teacher_guidance", "online_guidance", "guidance_interval"}
UNUSED = ("", "none", "scheduler", 0, False, None, ())


def main() -> None:
    """Put the tables in their places on the page."""
    PAGE.write_text(publish(PAGE.read_text(encoding="utf-8"), tables()), encoding="utf-8")


def tables() -> list[Table]:
    """Every table of the page."""
    return [
        table_4(),
        _columns("table 5", "Table 5: CIFAR-10", PAPER[:2], explained=True),
        _columns("b.3 and listing 1", "B.3: text to image, and Listing 1: two dimensions", PAPER[2:], explained=False),
        figure_2(),
    ]


def table_4() -> Table:
    """The distances, their formulas from their docstrings, and their parameters with their defaults."""
    rows: list[list[str]] = []
    for kind in DISTANCES:
        found = FORMULAS.search(inspect.getdoc(kind) or "")
        if found is None:
            raise ValueError(f"{kind.__name__}: its docstring must begin d(y) = …, d'(y) = … [Table 4, row …]")
        parameters = ", ".join(f"{field.name} = {field.default}" for field in dataclasses.fields(kind))
        value, gradient, row = found.groups()
        rows.append([row, f"`{kind.__name__}`", value, gradient, parameters or "–"])
    return Table("table 4", "Table 4: distances", ["row", "name", "d(y)", "d'(y)", "parameters"], _cells(sorted(rows)))


def figure_2() -> Table:
    """The grid of Figure 2: what differs between its variants."""
    rows = [[f"`{name}`", *map(_value, settings.values())] for name, settings in GRIDS["figure-2"].items()]
    columns = ["variant", "objective", "generator's noise distribution", "weighting"]
    return Table("figure 2", "Figure 2: method × noise distribution × weighting", columns, _cells(rows))


def _columns(name: str, title: str, recipes: list[str], explained: bool) -> Table:
    """Recipes side by side, one setting per row; equal recipes share a column.

    Settings that the paper does not have, or that none of the recipes uses, are left out.
    """
    groups: list[list[str]] = []
    for recipe in recipes:
        alike = [group for group in groups if RECIPES[group[0]] == RECIPES[recipe]]
        alike[0].append(recipe) if alike else groups.append([recipe])
    rows: list[list[str]] = []
    for field, about in _field_docstrings(Recipe).items():
        used = any(getattr(RECIPES[recipe], field) not in UNUSED for recipe in recipes)
        if used and field not in NOT_THE_PAPERS:
            values = [_value(getattr(RECIPES[group[0]], field)) for group in groups]
            rows.append([f"`{field}`", *values, *[about] * explained])
    heads = [", ".join(f"`{recipe}`" for recipe in group) for group in groups]
    return Table(name, title, ["setting", *heads, *["what it is"] * explained], _cells(rows))


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, tuple) and all(map(dataclasses.is_dataclass, value)):
        return ", ".join(f"`{expression(part)}`" for part in value)
    return f"`{expression(value)}`" if dataclasses.is_dataclass(value) else str(value) or "–"


def _field_docstrings(kind: type) -> dict[str, str]:
    """The fields of a dataclass and the strings below them, as in the source."""
    (definition,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(definition, ast.ClassDef)
    about: dict[str, str] = {}
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
            about[ast.unparse(field.target)] = inspect.cleandoc(ast.literal_eval(below.value)).replace("\n", " ")
    return about


def _cells(rows: list[list[str]]) -> list[list[str]]:
    """Rows with the bars in their cells escaped."""
    return [[cell.replace("|", r"\|") for cell in row] for row in rows]


if __name__ == "__main__":
    main()
