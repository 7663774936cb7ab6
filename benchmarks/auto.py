"""`python -m benchmarks.auto [TEACHER …]`: the recipe `auto` beside the tuned ones, at equal iterations.

Each training is measured once and kept in benchmarks/auto.json; the same command goes on where it stopped, and renews
the table of docs/auto.md. Samples, own teachers and encoded captions are kept in runs/benchmark-auto.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import teachers
from benchmarks.machine import ROOT, describe
from benchmarks.tables import Table, publish
from examples.faces.making import draw as draw_face
from simdistill.config.recipes import RECIPES, Recipe
from simdistill.data.images import open_images
from simdistill.evaluation.extractors import PIXELS, load_extractor
from simdistill.evaluation.metrics import Moments, energy_distance, frechet_distance
from simdistill.evaluation.quality import REFERENCE_SEED
from simdistill.evaluation.sampling import Sampler, balanced_labels, draw, student_sampler, teacher_sampler
from simdistill.method.denoisers import GaussianMixture
from simdistill.method.generator import Generator
from simdistill.method.shapes import Data
from simdistill.support.files import write_atomically
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.teacher import Teacher
from simdistill.teachers.weights import read_network
from simdistill.training.trainer import DistillationTrainer
from simdistill.workflows.auto import choose
from simdistill.workflows.encoding import encode
from simdistill.workflows.proxy import fit_proxy

FOLDER, RESULTS, PAGE = ROOT / "runs" / "benchmark-auto", Path(__file__).parent / "auto.json", ROOT / "docs" / "auto.md"
SEEDS = 3
DRAWS, SAMPLES, POINTS = 3, 2000, 20_000  # evaluation seeds; samples of each; points in two dimensions
PAIRED = 5000  # points for the energy distance
CAPTIONS = 4000


@dataclass(frozen=True)
class Case:
    """A teacher, the recipe that `auto` is compared with, and the length of both trainings."""

    teacher: Callable[[], Teacher]
    recipe: Recipe
    iterations: int
    features: str = "digits"
    scale: float = 1.0
    """What samples are divided by before they are measured."""


def _faces() -> Teacher:
    folder = FOLDER / "faces-prompts"
    if not (folder / "embeddings.json").exists():
        captions = FOLDER / "captions.txt"
        text = "".join(f"{draw_face('train', 0, k)[1].text}\n" for k in range(CAPTIONS))
        write_atomically(captions, text.encode())
        encode(captions, "minilm", folder, tokens=64)
    return load_teacher("faces").prepared(Recipe(prompts=str(folder)))


DIGITS = RECIPES["digits"]
CASES: dict[str, Case] = {
    "digits": Case(partial(load_teacher, "digits"), DIGITS, 2000),
    "gaussians-25": Case(partial(load_teacher, "gaussians-25"), RECIPES["densities"], 2000, "pixels"),
    "rings": Case(partial(load_teacher, "rings"), RECIPES["densities"], 2000, "pixels"),
    "fashion-mnist": Case(partial(load_teacher, "fashion-mnist"), RECIPES["fashion-mnist"], 100, "fashion-mnist"),
    "faces": Case(_faces, RECIPES["faces-unguided"], 100, "faces"),
    "epsilon": Case(partial(teachers.epsilon, FOLDER), DIGITS, 2000),
    "epsilon-weak": Case(partial(teachers.epsilon, FOLDER, 300), DIGITS, 2000),
    "flow": Case(partial(teachers.flow, FOLDER), DIGITS, 2000),
    "scale-0.2": Case(partial(teachers.scaled, 0.2), DIGITS, 2000, scale=0.2),  # spread 0.10
    "scale-40": Case(partial(teachers.scaled, 40.0), DIGITS, 2000, scale=40.0),  # spread 21
}


class Bench:
    """A case ready to train: teacher, start, and reference."""

    def __init__(self, name: str) -> None:
        self.name, self.case = name, CASES[name]
        self.teacher = self.case.teacher()
        self.extractor = load_extractor(self.case.features)
        mixture = self.teacher.denoiser
        self.mixture = mixture if isinstance(mixture, GaussianMixture) else None
        self.count = POINTS if self.mixture is not None else SAMPLES
        start = FOLDER / f"{name}-start.safetensors"
        if self.teacher.trainable is None and not start.exists():
            fit_proxy(self.teacher, start, "cpu")
        self.start = self.teacher.trainable or read_network(start)[0]

    @cached_property
    def reference(self) -> Data:
        """Features of the exact distribution, of the digits' images, or of the teacher's samples."""
        if self.mixture is not None:
            return self.mixture.sample(POINTS, torch.Generator().manual_seed(REFERENCE_SEED))
        if self.case.features == "digits":
            images = open_images("digits")
            return self.extractor.features(images.batch(range(len(images))))
        path = FOLDER / f"{self.name}-reference.pt"
        if not path.exists():
            torch.save(self._drawn(teacher_sampler(self.teacher), REFERENCE_SEED), path)
        return self.extractor.features(torch.load(path))

    def train(self, recipe: Recipe) -> dict[str, Any]:
        """The figures of a student by `recipe`, and of the start from which it came."""
        trainer = DistillationTrainer(self.teacher, recipe, self.start)
        began = time.perf_counter()
        for _ in range(recipe.iterations):
            trainer.step()
        seconds = time.perf_counter() - began
        return {"seconds": round(seconds, 1), **self.figures(student_sampler(trainer.snapshot(), self.teacher))}

    def undistilled(self, recipe: Recipe) -> dict[str, Any]:
        """The figures of the generator before its training."""
        return self.figures(student_sampler(Generator(self.start, (recipe.sigma_init,)), self.teacher))

    def figures(self, sampler: Sampler) -> dict[str, Any]:
        """Means over evaluation seeds."""
        found: dict[str, list[float]] = {}
        moments = Moments.of(self.reference)
        for k in range(DRAWS):
            features = self.extractor.features(self._drawn(sampler, k * self.count))
            found.setdefault("frechet", []).append(frechet_distance(Moments.of(features), moments))
            if self.extractor is PIXELS:
                found.setdefault("energy", []).append(energy_distance(features[:PAIRED], self.reference))
            if self.mixture is not None:
                found.setdefault("within", []).append(self._within(features))
        return {name: sum(values) / len(values) for name, values in found.items()}

    def _drawn(self, sampler: Sampler, first: int) -> Data:
        labels = balanced_labels(self.count, self.teacher.conditions)
        return draw(sampler, range(first, first + self.count), self.teacher.shape, labels) / self.case.scale

    def _within(self, points: Data) -> float:
        """The share of points within 4σ of a mode."""
        assert self.mixture is not None
        sigma = float(self.mixture.covariances[0, 0, 0].sqrt())
        return float((torch.cdist(points, self.mixture.means).min(1).values < 4 * sigma).double().mean())


def measure(name: str, seeds: int) -> None:
    """All trainings of a case that are not there yet."""
    case = CASES[name]
    missing = [(kind, seed) for seed in range(seeds) for kind in ("auto", "tuned") if _key(kind, seed) not in _of(name)]
    if not missing:
        return
    bench = Bench(name)
    auto = choose(bench.teacher, given=("batch", "iterations"), base=_base(case))
    if "start" not in _of(name):
        _keep(name, "start", bench.undistilled(auto.recipe))
    if case.scale == 1 and bench.mixture is None and "teacher" not in _of(name):
        _keep(name, "teacher", bench.figures(teacher_sampler(bench.teacher)) if name != "fashion-mnist" else {})
    for kind, seed in missing:
        recipe = auto.recipe if kind == "auto" else replace(case.recipe, iterations=case.iterations)
        _keep(name, _key(kind, seed), bench.train(replace(recipe, seed=seed)))


def _base(case: Case) -> Recipe:
    """Equal batches and iterations for both."""
    return Recipe(batch=case.recipe.batch, iterations=case.iterations)


def _key(kind: str, seed: int) -> str:
    return f"{kind} {seed}"


def _all() -> dict[str, Any]:
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


def _of(name: str) -> dict[str, Any]:
    return _all().get(name, {})


def _keep(name: str, key: str, found: dict[str, Any]) -> None:
    results = _all()
    results["machine"] = describe() | {"command": "python -m benchmarks.auto"}
    results.setdefault(name, {})[key] = found
    write_atomically(RESULTS, (json.dumps(results, indent=1) + "\n").encode())
    print(name, key, json.dumps(found), flush=True)


def table(results: dict[str, Any]) -> Table:
    """Fréchet distances by teacher: `auto`, the recipe it is compared with, their ratio."""
    rows: list[list[str]] = []
    for name, case in CASES.items():
        found = results.get(name, {})
        auto, tuned = (
            [found[key] for key in (_key(kind, seed) for seed in range(SEEDS)) if key in found]
            for kind in ("auto", "tuned")
        )
        if not auto or not tuned:
            continue
        for metric in [metric for metric in ("frechet", "energy", "within") if metric in auto[0]]:
            ours, theirs = ([one[metric] for one in ones] for ones in (auto, tuned))
            ratio = sum(ours) / len(ours) / (sum(theirs) / len(theirs))
            start = found.get("start", {}).get(metric)
            cells = [name, f"{case.iterations:,}", NAMES[metric], _text(ours), _text(theirs), f"{ratio:.2f}"]
            rows.append([*cells, "–" if start is None else f"{start:.3g}"])
    columns = ["teacher", "iterations", "metric", "`auto`", "tuned recipe", "ratio", "undistilled"]
    return Table("auto", "`auto` beside the recipes of the shipped teachers, mean ± sd over seeds", columns, rows)


NAMES = {"frechet": "Fréchet distance", "energy": "energy distance", "within": "share within 4σ"}


def _text(values: list[float]) -> str:
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.3g} (one seed)"
    deviation = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    return f"{mean:.3g} ± {deviation:.1g}" + ("" if len(values) == SEEDS else f" ({len(values)} seeds)")


def main() -> None:
    """Measure the given teachers, or all, and renew the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.auto", description=__doc__)
    parser.add_argument("teachers", nargs="*", metavar="TEACHER", help=f"{', '.join(CASES)}; all if none is given")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="training seeds (default: %(default)s)")
    asked = parser.parse_args()
    unknown = [name for name in asked.teachers if name not in CASES]
    if unknown:
        parser.error(f"unknown teacher {unknown[0]}; known: {', '.join(CASES)}")
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in asked.teachers or CASES:
        measure(name, asked.seeds)
    PAGE.write_text(publish(PAGE.read_text(encoding="utf-8"), [table(_all())]), encoding="utf-8")


if __name__ == "__main__":
    main()
