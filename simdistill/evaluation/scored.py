"""Scores of several models' pictures for the same prompts: side by side, and how they differ prompt by prompt."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from simdistill.method.shapes import PerSample


@dataclass(frozen=True)
class Scored:
    """By model the names of its `pictures`, one a prompt, and by score a number for each of them, its `values`.

    `weights` says what each score was read from.
    """

    prompts: Sequence[str]
    weights: dict[str, str]
    pictures: dict[str, Sequence[str]]
    values: dict[str, dict[str, PerSample]]

    @property
    def first(self) -> str:
        """The model that the others are compared with."""
        return next(iter(self.values))

    def figures(self) -> dict[str, Any]:
        """Mean and standard deviation over the prompts, by model and score, and the differences from the first model.

        A difference is the mean of those at each prompt, and its `error` the standard error of that mean, which the
        prompts' own spread does not enter. Of one prompt there is neither deviation nor error: None.
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
        }

    def table(self) -> bytes:
        """A CSV with a row a picture."""
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
