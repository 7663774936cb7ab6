"""A study's pairs: samples of two models for the same prompts and seeds, or images in two folders."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from PIL import Image

from simdistill.config.recipes import RECIPES
from simdistill.data.image_files import folder_captions, numbered_pictures
from simdistill.data.images import pixels_of
from simdistill.data.listings import CAPTIONS, FILE_NAME
from simdistill.data.notes import Notes
from simdistill.data.pictures import SUFFIXES, read_picture
from simdistill.data.prompts import BUNDLED, read_named_prompts, read_prompts
from simdistill.evaluation.sampling import draw, student_sampler, teacher_sampler
from simdistill.study.folder import Draft
from simdistill.support.checks import require
from simdistill.teachers.encoders import encoded, load_encoder
from simdistill.teachers.teacher import Teacher
from simdistill.workflows.models import Device, is_shipped, load_generator, teacher_and_recipe

Player: TypeAlias = Literal["student", "teacher"]


@dataclass(frozen=True)
class Source:
    """Where one side's images come from: student or teacher of a run or of a shipped student, or a folder of images."""

    place: str
    player: Player = "student"

    @classmethod
    def named(cls, text: str) -> "Source":
        """Parse a source: teacher:RUN, student:RUN, RUN for its student, or a folder of images."""
        player, colon, place = text.partition(":")
        if colon and player in ("student", "teacher"):
            return cls(place, "teacher" if player == "teacher" else "student")
        return cls(text)

    @property
    def shipped(self) -> bool:
        """Whether it is a shipped student or its teacher."""
        return is_shipped(self.place)

    @property
    def draws(self) -> bool:
        """Whether it is a model rather than a folder of images."""
        return self.shipped or (Path(self.place) / "config.toml").is_file()


@dataclass(frozen=True)
class Wanted:
    """What pairs to make: each of the `prompts` (read by `read_prompts`), `each` times, from `seed` on.

    Class-conditional models take one prompt per class, in the order of the labels; by default "class 0", ….
    `teacher` is the runs' teacher, if it is the user's own code. `notes` count what was converted or passed over.
    """

    prompts: Path | None = None
    column: str = ""
    each: int = 1
    seed: int = 0
    teacher: Teacher | None = None
    device: Device = "cpu"
    notes: Notes = field(default_factory=Notes, compare=False)

    def __post_init__(self) -> None:
        require(self.each >= 1, "--each", self.each, "at least 1")

    @cached_property
    def named(self) -> dict[str, str] | None:
        """The prompts by image name (without suffix), if the file of prompts names the images."""
        found = None if self.prompts is None else read_named_prompts(self.prompts, self.column, self.notes)
        if found is None:
            return None
        stems = {_stem(name): text for name, text in found.items()}
        require(
            len(stems) == len(found),
            f"--prompts {self.prompts}: {FILE_NAME}",
            _clashing([*found]),
            "unique without suffixes",
        )
        return stems

    @cached_property
    def texts(self) -> list[str] | None:
        """The prompts, or None if none are given."""
        named = self.named
        if named is not None:
            return list(named.values())
        return None if self.prompts is None else read_prompts(self.prompts, self.column, notes=self.notes)


def draft_pairs(a: Source, b: Source, wanted: Wanted) -> list[Draft]:
    """The pairs of two sources; two models start from the same noise.

    Two folders are matched by file name without suffix. So are their prompts if the file of prompts has a column
    `file_name`; otherwise they follow the order of the names, or come from `metadata.jsonl` in the first folder. A
    folder compared with a model needs one image for each of the model's, matched in the same way.

    Raises `ValueError` for an unknown source, a model without prompts or labels, or a folder without the right images.
    """
    for source in (a, b):
        require(source.draws or Path(source.place).is_dir(), "--a, --b", source.place, "a run or a folder of images")
    if not (a.draws or b.draws):
        return _matched(Path(a.place), Path(b.place), wanted)
    first = a if a.draws else b
    bundled = RECIPES[first.place].teacher if first.shipped else ""
    if wanted.prompts is None and bundled in BUNDLED:
        wanted = replace(wanted, prompts=Path(bundled))
    texts, pictures = wanted.texts, {source: _drawn(source, wanted) for source in (a, b) if source.draws}
    if texts is None:
        texts = [f"class {label}" for label in range(teacher_and_recipe(first.place, wanted.teacher)[0].classes)]
    texts = texts * wanted.each
    for source in (a, b):
        if not source.draws:
            files, named = _files(Path(source.place), wanted.notes), wanted.named
            order = list(files) if named is None else _known(wanted, named, files)
            pictures[source] = [_read(files[name], wanted.notes) for name in order]
        count = len(pictures[source])
        require(count == len(texts), f"{source.place}: images", count, f"{len(texts)}, one per prompt")
    return [Draft(*row) for row in zip(texts, pictures[a], pictures[b], strict=True)]


def _matched(a: Path, b: Path, wanted: Wanted) -> list[Draft]:
    left, right = _files(a, wanted.notes), _files(b, wanted.notes)
    alone = sorted(left.keys() ^ right.keys())
    require(not alone, "names in only one of the folders", alone[:5], "none: images are matched by name")
    require(wanted.each == 1, "--each", wanted.each, "1 for folders of images")
    named = wanted.named
    if named is not None:
        _known(wanted, named, left)
        texts = [named[name] for name in left]
    elif wanted.prompts is None:
        texts = folder_captions(a, [file.name for file in left.values()], wanted.notes)
    else:
        texts = read_prompts(wanted.prompts, wanted.column, repeated=True, notes=wanted.notes)
    if texts is None:
        raise ValueError(f"--prompts = '': must be given: {a} has no {' or '.join(CAPTIONS)} with captions")
    remedy = f"{len(left)}, one per image in {a}"
    require(len(texts) == len(left), f"--prompts {wanted.prompts}: prompts", len(texts), remedy)
    empty = [name for name, text in zip(left, texts, strict=True) if not text]
    require(not empty, f"{a}: images without a caption", empty[:5], "none: people are asked about each; give --prompts")
    return [
        Draft(text, _read(left[name], wanted.notes), _read(right[name], wanted.notes))
        for text, name in zip(texts, left, strict=True)
    ]


def _read(file: Path, notes: Notes) -> Image.Image:
    """A picture in RGB, as a browser shows it."""
    return read_picture(file, notes).convert("RGB")


def _known(wanted: Wanted, named: Mapping[str, str], files: Mapping[str, Path]) -> list[str]:
    """The names shared by prompts and images, in the prompts' order; `ValueError` if one has no match."""
    require(wanted.each == 1, "--each", wanted.each, f"1 for prompts with a {FILE_NAME}")
    alone = sorted(named.keys() ^ files.keys())
    where = f"--prompts {wanted.prompts}: {FILE_NAME} without an image, or an image without a {FILE_NAME}"
    require(not alone, where, alone[:5], "none: each names one image")
    return list(named)


def _files(folder: Path, notes: Notes) -> dict[str, Path]:
    """The images in a folder by name without suffix (Unicode NFC); 2.png before 10.png."""
    files = numbered_pictures(folder, notes)
    require(len(files) > 0, f"{folder}: images", 0, f"at least one of {', '.join(SUFFIXES)}")
    clashing = _clashing([file.name for file in files])
    require(
        not clashing,
        f"{folder}: images of the same name",
        clashing,
        "none: images are matched by name without suffix",
    )
    return {_stem(file.name): file for file in files}


def _stem(name: str) -> str:
    """An image's name without its suffix."""
    bare = name.rpartition(".")[0] if name.lower().endswith(SUFFIXES) else name
    return unicodedata.normalize("NFC", bare)


def _clashing(names: Sequence[str]) -> list[str]:
    """The first names that are equal without their suffixes."""
    stems = [_stem(name) for name in names]
    twice = [name for name, stem in zip(names, stems, strict=True) if stems.count(stem) > 1]
    return [name for name in twice if _stem(name) == _stem(twice[0])]


def _drawn(source: Source, wanted: Wanted) -> list[Image.Image]:
    """A model's images: image k from seed `seed` + k, for the prompts or classes in turn."""
    (teacher, recipe), texts = teacher_and_recipe(source.place, wanted.teacher), wanted.texts
    if teacher.text is None:
        require(teacher.classes > 0, source.place, "unconditional", "a model that takes prompts or class labels")
        count = teacher.classes if texts is None else len(texts)
        require(
            count == teacher.classes,
            f"--prompts {wanted.prompts}: prompts",
            count,
            f"{teacher.classes}, one per class of {source.place}",
        )
    else:
        encoder = load_encoder(teacher.asked.encoder, wanted.device, tokens=teacher.text.tokens)
        require(texts is not None, "--prompts", "", f"given: {source.place} is a text-to-image model")
        teacher = teacher.with_prompts(encoded(encoder, texts or []), encoder.empty())
        count = len(texts or [])
    teacher = teacher.prepared(replace(recipe, prompts=""))
    teacher.check(wanted.device)
    if source.player == "teacher":
        sampler = teacher_sampler(teacher)
    else:
        sampler = student_sampler(load_generator(source.place, teacher)[0].to(wanted.device), teacher)
    seeds = range(wanted.seed, wanted.seed + count * wanted.each)
    rows = torch.tensor([*chain(*[range(count)] * wanted.each)])
    pictures = teacher.decoded(draw(sampler, seeds, teacher.shape, rows, wanted.device), wanted.device)
    require(pictures.ndim == 4 and pictures.shape[1] in (1, 3), source.place, "no images", "a model of images")
    pixels = pixels_of(pictures).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().numpy()
    return [Image.fromarray(one) for one in pixels]
