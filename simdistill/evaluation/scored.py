"""Scores of several models' pictures for the same prompts, side by side and as paired differences."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from simdistill.method.shapes import PerSample


@dataclass(frozen=True)
class Scored:
    """By model the names of its `pictures`, one per prompt, and its `values`, by score one per picture.

    `weights` identifies the weights of each score; `notes` count what was converted or passed over.
    """

    prompts: Sequence[str]
    weights: dict[str, str]
    pictures: dict[str, Sequence[str]]
    values: dict[str, dict[str, PerSample]]
    notes: dict[str, int] = field(default_factory=dict)

    @property
    def first(self) -> str:
        """The model that the others are compared with."""
        return next(iter(self.values))

    def figures(self) -> dict[str, Any]:
        """Mean and standard deviation over the prompts, by model and score, and the differences from the first model.

        A difference is the mean of the paired differences per prompt, and its `error` their standard error, without the
        variance between prompts. For one prompt, deviation and error are None.
        """
        first = self.values[self.first]
        others = {model: values for model, values in self.values.items() if model != self.first}
        return {
            "prompts": len(self.prompts),
            "weights": self.weights,
            "models": {
                model: {name: _spread(v) for name, v in values.items()} for model, values in self.values.items()
            },
            "compared_with": self.first,
            "differences": {
                model: {name: _difference(v, first[name]) for name, v in values.items()}
                for model, values in others.items()
            },
            "notes": self.notes,
        }

    def table(self) -> bytes:
        """A CSV with one row per picture."""
        table = io.BytesIO()
        rows = [
            {"model": model, "picture": picture, "prompt": prompt, **{name: float(v[i]) for name, v in values.items()}}
            for model, values in self.values.items()
            for i, (picture, prompt) in enumerate(zip(self.pictures[model], self.prompts, strict=True))
        ]
        pl.DataFrame(rows).write_csv(table)
        return table.getvalue()


def _spread(values: PerSample) -> dict[str, float | None]:
    values = values.double()
    return {"mean": float(values.mean()), "std": float(values.std()) if len(values) > 1 else None}


def _difference(values: PerSample, first: PerSample) -> dict[str, float | None]:
    found = _spread(values.double() - first.double())
    deviation = found["std"]
    return {"mean": found["mean"], "error": None if deviation is None else deviation / len(values) ** 0.5}
