"""The options of a distillation without a recipe's name: the recipe `auto`, chosen for the teacher that is named."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from simdistill.commands.common import limit_threads, parameters
from simdistill.commands.settings import Distill, about_recipes, configured
from simdistill.config.auto import NAME
from simdistill.config.options import named_file, parse_options
from simdistill.config.recipes import Recipe
from simdistill.config.settings import read_toml
from simdistill.runs.folder import check_new_run
from simdistill.support.bar import progress_bar
from simdistill.support.checks import require
from simdistill.teachers.loading import load_teacher
from simdistill.teachers.teacher import Teacher
from simdistill.training.processes import joined
from simdistill.workflows.auto import SETTINGS, Auto, choose, lines, tell
from simdistill.workflows.reading import Drawn


@dataclass(frozen=True)
class Chosen:
    """The options, the teacher as it was loaded, and the samples that were read, if any were."""

    options: Distill
    teacher: Teacher | None = None
    drawn: Drawn | None = None


def is_auto(words: Sequence[str], source: str = "--teacher") -> bool:
    """Whether the words name the recipe `auto`, or none but the option `source`: a teacher, or images."""
    if not words or words[0] == NAME:
        return bool(words)
    asks_help = "--help" in words or "-h" in words
    return words[0].startswith("-") and not asks_help and any(word.split("=")[0] == source for word in words)


def without_name(words: Sequence[str]) -> Sequence[str]:
    """The words but the recipe's name `auto`."""
    return words[1:] if words[:1] == [NAME] else words


def stated(words: Sequence[str]) -> set[str]:
    """The settings that the words give."""
    return {word.split("=")[0].lstrip("-").replace("-", "_").removeprefix("no_") for word in words if word[:2] == "--"}


def auto_options(words: Sequence[str], verb: str, about: str) -> Chosen:
    """The options with a recipe for the teacher; auto < --config < command line. What is chosen is printed on stderr.

    A configuration with all that `auto` chooses, such as a run's, is taken as it is.
    """
    rest = without_name(words)
    path = named_file(rest, "--config")
    prog, about = f"{verb} {NAME}", f"{about}\n\n{about_recipes(verb)}"

    def parsed(base: Recipe) -> Distill:
        return parse_options(Distill(settings=configured(base, path)), rest, prog, about)

    options = parsed(Recipe())
    kinds = "FILE.pkl, FILE.safetensors, a diffusers FOLDER or package.module:function"
    require(options.settings.teacher != "", "--teacher", "", f"given for {NAME}: {kinds}")
    if verb == "distill" and not options.dry_run:
        check_new_run(options.out_of(NAME), options.overwrite)  # before the teacher draws samples
    file: dict[str, Any] = {} if path is None else read_toml(path)
    given = stated(rest) | set(file)
    if given >= SETTINGS:
        return Chosen(options)
    with progress_bar("loading the teacher"):
        teacher = load_teacher(options.settings.teacher, options.settings.teacher_levels)
    limit_threads(parameters(teacher))
    auto = _chosen(teacher, options, given)
    return Chosen(replace(options, settings=auto.recipe), teacher, auto.drawn)


def _chosen(teacher: Teacher, options: Distill, given: set[str]) -> Auto:
    """The choice; of several processes, the main one makes and tells it."""
    with joined(options.device) as (processes, device):
        base = options.settings
        if processes.is_main:
            tell(["auto: reading samples of the teacher …"])
        auto = processes.on_main(lambda: choose(teacher, device, base, given))
        if processes.is_main:
            tell(lines(auto))
    return auto
