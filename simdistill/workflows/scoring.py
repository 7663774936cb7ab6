"""Scoring text-to-image models: one image per prompt by each model, from the same seeds."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from simdistill.data.embeddings import ABOUT
from simdistill.data.image_files import numbered_pictures
from simdistill.data.notes import Notes
from simdistill.data.pictures import read_picture, tensor_of
from simdistill.data.prompts import read_prompts
from simdistill.evaluation.preferences import Score, load_scores
from simdistill.evaluation.sampling import Sampler, batch_for, draw, student_sampler, teacher_sampler
from simdistill.evaluation.scored import Scored
from simdistill.method.shapes import PerSample, Pictures
from simdistill.support.bar import progress_bar
from simdistill.support.checks import require
from simdistill.teachers.encoders import digest_of
from simdistill.teachers.teacher import Teacher
from simdistill.workflows.encoding import encode
from simdistill.workflows.models import Device, check_extra, is_shipped, load_generator, teacher_and_recipe

READ = 16  # images of a folder that are scored at a time


@dataclass(frozen=True)
class Protocol:
    """What every model draws: one image for each of the `prompts`, from the seeds `seed`, `seed` + 1, ….

    `prompts` and `column` are as for `read_prompts`; `prompts` may also be a folder of `simdistill encode`. With
    `student_only`, the runs' teachers are left out.
    """

    prompts: Path
    seed: int = 0
    column: str = ""
    student_only: bool = False
    device: Device = "cpu"


@dataclass(frozen=True)
class _Model:
    """One image per prompt: the names of all, and `draw` for at most `batch` at a time, in [-1, 1], in order.

    What is drawn comes in parts of one size each.
    """

    name: str
    pictures: Sequence[str]
    draw: Callable[[range], Iterable[Pictures]]
    batch: int


def score(models: Sequence[Path], weights: Mapping[str, Path | None], protocol: Protocol) -> Scored:
    """Score one image per prompt by each of the `models`: runs' folders, shipped students, and folders of images.

    A run's teacher (with the run's guidance and the reference sampler) and its student start from the same noise. The
    images of a folder belong to the prompts in the order of their names, 2.png before 10.png. `weights` are those of
    `load_scores`. Only a few images are in memory at a time.

    Raises `ValueError` if weights cannot be read, a folder does not have one image per prompt, a run's teacher takes no
    prompts, or two models have the same name.
    """
    for path in models:
        check_extra(path)
    notes, encoded = Notes(), (protocol.prompts / ABOUT).is_file()
    texts = read_prompts(protocol.prompts, protocol.column, notes=Notes() if encoded else notes)
    for path in models:
        known = path.is_dir() or is_run(path)
        require(known, "MODEL", str(path), "a run's folder, a shipped student, or a folder of images")
    several = sum(map(is_run, models)) > 1
    names = {path: _names(path, several, protocol.student_only) for path in models}
    alike = [name for name, times in Counter(chain(*(names[path] for path in models))).items() if times > 1]
    require(not alike, "models of the same name", alike, "none; rename a folder")
    folders = {path: _of_folder(path, len(texts), notes) for path in models if not is_run(path)}
    scores = load_scores(**weights, device=protocol.device)
    values: dict[str, dict[str, PerSample]] = {}
    pictures: dict[str, Sequence[str]] = {}
    with TemporaryDirectory() as room:
        for path in models:
            found = [folders[path]] if path in folders else _of_run(path, names[path], len(texts), protocol, Path(room))
            for model in found:
                values[model.name], pictures[model.name] = _scores(model, texts, scores), model.pictures
    notes.tell("score")
    return Scored(texts, {one.name: one.weights for one in scores}, pictures, values, notes.counts())


def is_run(path: Path) -> bool:
    """Whether this is a run's folder or a shipped student, rather than a folder of images."""
    return (path / "config.toml").is_file() or is_shipped(path)


def _names(path: Path, several: bool, student_only: bool) -> list[str]:
    """The names of a folder's models; with the runs' names if there are several runs."""
    own = path.resolve().name
    players = ["student"] if student_only else ["teacher", "student"]
    return [f"{own} {player}" if several else player for player in players] if is_run(path) else [own]


def _scores(model: _Model, texts: Sequence[str], scores: Sequence[Score]) -> dict[str, PerSample]:
    found: dict[str, list[PerSample]] = {one.name: [] for one in scores}
    with progress_bar(model.name, len(texts), True) as advance:
        parts = (model.draw(range(len(texts))[k : k + model.batch]) for k in range(0, len(texts), model.batch))
        done = 0
        for pictures in chain.from_iterable(parts):
            for one in scores:
                found[one.name].append(one(pictures, texts[done : done + len(pictures)]))
            done += len(pictures)
            advance(len(pictures))
    return {name: torch.cat(parts) for name, parts in found.items()}


def _of_run(path: Path, names: Sequence[str], count: int, protocol: Protocol, room: Path) -> list[_Model]:
    """A run's teacher and student, or only the student; prompts are encoded in `room` unless they already are."""
    (teacher, recipe), device = teacher_and_recipe(path), protocol.device
    if teacher.text is None:
        raise ValueError(f"{path}: its teacher = {teacher.name!r}: must be a text-to-image model")
    own = room / str(digest_of(teacher.asked.encoder))  # runs of one encoder share it
    encoded = protocol.prompts if (protocol.prompts / ABOUT).is_file() else own
    if not (encoded / ABOUT).is_file():
        encode(protocol.prompts, teacher.asked.encoder, encoded, protocol.column, device, tokens=teacher.text.tokens)
    teacher = teacher.prepared(replace(recipe, prompts=str(encoded)))
    teacher.check(device)
    generator, _ = load_generator(path, teacher)
    samplers: list[Sampler] = [teacher_sampler(teacher), student_sampler(generator.to(device), teacher)]
    seeds = range(protocol.seed, protocol.seed + count)
    pictures = [f"seed {seed}" for seed in seeds]
    return [
        _Model(name, pictures, partial(_drawn, sampler, teacher, seeds, device), batch_for(teacher.shape))
        for name, sampler in zip(names, samplers[-len(names) :], strict=True)
    ]


def _drawn(sampler: Sampler, teacher: Teacher, seeds: range, device: Device, rows: range) -> list[Pictures]:
    """The images for these prompts, each from its own seed."""
    samples = draw(sampler, seeds[rows.start : rows.stop], teacher.shape, torch.tensor(rows), device)
    return [teacher.decoded(samples, device)]


def _of_folder(path: Path, count: int, notes: Notes) -> _Model:
    files = numbered_pictures(path, notes)
    require(len(files) == count, f"{path}: images", len(files), f"{count}, one per distinct prompt")
    return _Model(path.resolve().name, [file.name for file in files], partial(_read, files, notes), READ)


def _read(files: Sequence[Path], notes: Notes, rows: range) -> Iterator[Pictures]:
    pixels = (tensor_of(read_picture(file, notes).convert("RGB")) for file in files[rows.start : rows.stop])
    for _, alike in groupby(pixels, key=lambda image: image.shape):
        yield torch.stack(list(alike)) / 127.5 - 1
