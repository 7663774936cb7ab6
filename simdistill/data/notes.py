"""What reading people's files passed over, converted or guessed: counted, and said in the output."""

import sys
from collections import Counter

from simdistill.support.checks import printable


class Notes:
    """Counts of what is worth saying about files that were read, in the order in which it was first seen."""

    def __init__(self) -> None:
        self._named: dict[str, set[str]] = {}
        self._counted: Counter[str] = Counter()
        self._passed_over: Counter[str] = Counter()

    def add(self, what: str, name: str) -> None:
        """Count the file `name` among `what`, a noun in the plural and more: "images of 16 bits, scaled to 8"; once."""
        self._named.setdefault(what, set()).add(name)

    def count(self, what: str, number: int = 1) -> None:
        """Count `number` more of `what`."""
        self._counted[what] += number

    def pass_over(self, kind: str, number: int = 1) -> None:
        """Count files that were not read, by their suffix or name."""
        self._passed_over[kind] += number

    def include(self, other: "Notes") -> None:
        """Also count the named files of `other`, which read other images of the same set."""
        for what, names in other._named.items():
            self._named.setdefault(what, set()).update(names)

    def counts(self) -> dict[str, int]:
        """How many there are of each; `files passed over` are listed by kind, the most frequent first."""
        passed = self._passed_over
        kinds = in_short({kind: passed[kind] for kind in sorted(passed, key=lambda kind: (-passed[kind], kind))})
        found = {f"files passed over ({kinds})": sum(passed.values())} if passed else {}
        return found | {what: len(names) for what, names in self._named.items()} | dict(self._counted)

    def tell(self, source: str) -> None:
        """Print them on stderr, a line each."""
        for what, number in self.counts().items():
            noun, space, rest = what.partition(" ")
            one = f"{noun.removesuffix('s')}{space}{rest}"
            print(printable(f"{source}: {number:,} {one if number == 1 else what}"), file=sys.stderr)


def in_short(counts: dict[str, int], most: int = 8) -> str:
    """Counts by name as text, at most a few: "ants 2, bees 5, …"."""
    shown = [f"{name} {number:,}" for name, number in list(counts.items())[:most]]
    return ", ".join([*shown, "…"] if len(counts) > most else shown)
