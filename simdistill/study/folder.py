"""The folder of a study: settings, pairs of images, the owner's token and, by default, the database."""

import json
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

from PIL import Image

from simdistill.config.settings import read_toml, settings_from_mapping, to_mapping, to_toml
from simdistill.study.pictures import bare_png, equal_sizes, scrambled
from simdistill.study.settings import Settings
from simdistill.support.checks import require
from simdistill.support.files import temporary_folder, write_atomically
from simdistill.support.json_text import json_object
from simdistill.support.libraries import short


@dataclass(frozen=True)
class Pair:
    """Two images for a `prompt`, by file name.

    In an attention `check`, the first is an image of pair `of`, and the second is the same with its pixels shuffled.
    """

    number: int
    prompt: str
    a: str
    b: str
    check: bool = False
    of: int | None = None


@dataclass(frozen=True)
class Draft:
    """A pair before it is stored: the prompt and each side's image for it."""

    prompt: str
    a: Image.Image
    b: Image.Image


@dataclass(frozen=True)
class StudyFolder:
    """A study's folder; readable by its owner only, because it shows which side made which image."""

    path: Path

    @property
    def settings_file(self) -> Path:
        """TOML: the study's `Settings`."""
        return self.path / "study.toml"

    @property
    def pairs_file(self) -> Path:
        """JSON lines: the study's pairs."""
        return self.path / "pairs.jsonl"

    @property
    def token_file(self) -> Path:
        """The owner's token, which opens the owner's pages."""
        return self.path / "owner.token"

    @property
    def database(self) -> str:
        """URL of the default database."""
        return f"sqlite:///{self.path.resolve() / 'votes.sqlite3'}"

    @property
    def rehearsal_file(self) -> Path:
        """SQLite: the simulated votes of the last rehearsal."""
        return self.path / "rehearsal.sqlite3"

    @property
    def rehearsal(self) -> str:
        """URL of the database of simulated votes."""
        return f"sqlite:///{self.rehearsal_file.resolve()}"

    @cached_property
    def settings(self) -> Settings:
        """The study's settings; `ValueError` if the file is damaged."""
        values = read_toml(self.settings_file)
        try:
            return settings_from_mapping(Settings(), values)
        except ValueError as error:
            raise ValueError(f"{self.settings_file}: {error}") from error

    @cached_property
    def pairs(self) -> Sequence[Pair]:
        """All pairs, numbered from 1; `ValueError` if the file is damaged."""
        try:
            lines = self.pairs_file.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.pairs_file}: cannot be read ({short(error)})") from error
        return [self._pair(number, line) for number, line in enumerate(lines, 1)]

    def _pair(self, number: int, line: str) -> Pair:
        try:
            return Pair(**json_object(f"{self.pairs_file}, line {number}", line))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.pairs_file}, line {number}: not a pair ({short(error)})") from error

    @cached_property
    def token(self) -> str:
        """The owner's token; `ValueError` if there is none."""
        try:
            token = self.token_file.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.token_file}: cannot be read ({error})") from error
        require(len(token) >= 20, f"{self.token_file}: length of the token", len(token), "at least 20")
        return token

    @cached_property
    def sizes(self) -> Mapping[int, tuple[int, int]]:
        """Width and height of both pictures of each pair, by its number; `ValueError` if a picture is missing."""
        return {pair.number: self._size(pair) for pair in self.pairs}

    def picture(self, name: str) -> bytes:
        """A PNG of one of the pairs; `KeyError` for any other name."""
        if not any(name in (pair.a, pair.b) for pair in self.pairs):
            raise KeyError(name)
        return (self.path / "pictures" / name).read_bytes()

    def _size(self, pair: Pair) -> tuple[int, int]:
        found: list[tuple[int, int]] = []
        for name in (pair.a, pair.b):
            file = self.path / "pictures" / name
            try:
                with Image.open(file, formats=["PNG"]) as image:
                    found.append(image.size)
            except OSError as error:
                raise ValueError(f"{file}: image of pair {pair.number} cannot be read ({short(error)})") from error
        return found[0]

    @classmethod
    def open(cls, path: Path) -> "StudyFolder":
        """Open an existing study; `ValueError` if `path` is not one, or is damaged."""
        if not (path / "study.toml").is_file():
            raise ValueError(f"{path}: not a study's folder (it has no study.toml); run `simdistill study new` first")
        study = cls(path)
        require(len(study.pairs) > 0 and study.settings.identity != "", str(path), "damaged", "a complete study")
        return study

    @classmethod
    def create(cls, path: Path, settings: Settings, drafts: Iterable[Draft], checks: int = 0) -> "StudyFolder":
        """Create a study from these drafts and this many attention checks; atomically.

        Raises `ValueError` if `path` exists, or there are no drafts or fewer than `checks` or repeats.
        """
        require(not path.exists(), "STUDY", str(path), "a new folder: it exists already")
        with temporary_folder(path) as temporary:
            study = cls(temporary / path.name)
            (study.path / "pictures").mkdir(parents=True)
            study.path.chmod(0o700)
            _write_pairs(study, drafts, checks, settings.repeats)
            settings = replace(settings, identity=secrets.token_hex(8))
            write_atomically(study.settings_file, to_toml(to_mapping(settings)).encode())
            with os.fdopen(os.open(study.token_file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(24) + "\n")
            study.path.rename(path)
        return cls.open(path)


def _write_pairs(study: StudyFolder, drafts: Iterable[Draft], checks: int, repeats: int) -> None:
    pairs: list[Pair] = []
    sources: list[tuple[int, Draft]] = []
    for draft in drafts:
        a, b = equal_sizes(draft.a, draft.b, draft.prompt)
        pairs.append(Pair(len(pairs) + 1, draft.prompt, _store(study, a), _store(study, b)))
        if len(sources) < checks:
            kept = (a, b)[len(sources) % 2]  # alternate between the sides
            sources.append((len(pairs), Draft(draft.prompt, kept, scrambled(kept, len(sources)))))
    require(len(pairs) > 0, "pairs", 0, "at least 1")
    require(0 <= checks <= len(pairs), "--checks", checks, f"in 0 … {len(pairs)}, at most one per pair")
    require(repeats <= len(pairs), "--repeats", repeats, f"in 0 … {len(pairs)}, at most one per pair")
    for number, source in sources:
        a, b = _store(study, source.a), _store(study, source.b)
        pairs.append(Pair(len(pairs) + 1, source.prompt, a, b, check=True, of=number))
    lines = "".join(json.dumps(asdict(pair)) + "\n" for pair in pairs)
    write_atomically(study.pairs_file, lines.encode())


def _store(study: StudyFolder, image: Image.Image) -> str:
    """Write an image under a random name; return the name."""
    name = f"{secrets.token_hex(16)}.png"
    write_atomically(study.path / "pictures" / name, bare_png(image))
    return name
