"""The command line, one subcommand per verb. Nothing heavy is imported before a verb is chosen."""

import argparse
import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version

VERBS = {
    "distill": "distil a teacher into a one-step student; writes weights, metrics and a report",
    "plan": "estimate memory, compute and hours of a distillation on given GPUs; starts nothing",
    "sample": "draw images from a run or a shipped student, one per seed",
    "evaluate": "measure a run's teacher, student and undistilled start side by side",
    "score": "score text-to-image samples: CLIP score, aesthetic score, PickScore and others",
    "compare": "compare variants of a recipe over training seeds, with significance tests",
    "gallery": "distil exact two-dimensional densities, with animations and metrics",
    "encode": "encode prompts once, before distilling a text-to-image teacher",
    "stats": "compute reference statistics of images for FID and the other metrics",
    "export": "export a student as safetensors, ONNX, a torch.export program or a diffusers pipeline",
    "demo": "open a local page: type a prompt or pick a class, and see teacher and student side by side",
    "study": "run a preference study, in which people choose the better of two images",
    "quiz": "make a page like the paper's Figure 1: which image is the student's?",
    "watch": "show a run in progress on a live page: samples, curves, speed",
    "pretrain": "train a teacher on images",
    "convert": "convert EDM checkpoints to safetensors, the paper's generator to a run, images to EDM's zip",
    "features": "train a classifier as a feature extractor for the metrics",
}

EXAMPLES = """\
examples:
  simdistill distill digits                 8x8 digits: two minutes on two cores
  simdistill sample runs/digits --seeds 0-63 --labels 3
  simdistill evaluate runs/digits --json
  simdistill export runs/digits --to onnx   checked against the generator
  simdistill distill digits --help          all options, with their defaults
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code.

    0: success; 1: diverged; 2: invalid input or a system error; 75: stopped by a scheduler's SIGTERM or SIGUSR1, to be
    queued again (EX_TEMPFAIL of sysexits.h); 130: stopped by Ctrl-C.
    """
    parser = argparse.ArgumentParser(
        prog="simdistill",
        description="Distil diffusion and flow models into one-step generators, by Score Implicit\nMatching.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"simdistill {version('simdistill')}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, purpose in VERBS.items():
        verbs.add_parser(name, help=purpose, add_help=False, allow_abbrev=False)
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and not words[0].startswith("-") and words[0] not in VERBS:
        close = get_close_matches(words[0], VERBS, 1)
        remedy = f"did you mean {close[0]}?" if close else "`simdistill --help` lists all verbs"
        print(f"simdistill: {words[0]}: no such verb; {remedy}", file=sys.stderr)
        return 2
    verb: str = parser.parse_args(words[:1]).verb

    # threads that spin while they wait suffer most from a busy neighbour; to be set before torch starts
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        with _said("starting PyTorch …"):
            from simdistill.support.stopping import QUEUED_AGAIN, Interrupted, signals_of_a_command
            from simdistill.training.loop import Diverged

            command = import_module(f"simdistill.commands.{verb}")
    except KeyboardInterrupt:  # while torch starts
        return 130
    with signals_of_a_command():
        try:
            command.run(words[1:])
        except BrokenPipeError:  # | head
            return 0
        except OSError as error:
            return _complain(verb, f"error: {_told(error)}", 2)
        except ValueError as error:
            return _complain(verb, f"error: {error}", 2)
        except MemoryError as error:
            asked = f" ({error})" if str(error) else ""
            return _complain(verb, f"error: out of memory{asked}: ask for less at a time, or give a smaller file", 2)
        except RecursionError:
            return _complain(verb, "error: something in a file or an option is nested too deeply to be read", 2)
        except Diverged as error:
            return _complain(verb, f"diverged: {error}", 1)
        except Interrupted as error:
            return _complain(verb, str(error), 130 if error.by == "SIGINT" else QUEUED_AGAIN)
        except KeyboardInterrupt:
            return 130
    return 0


@contextmanager
def _said(what: str) -> Generator[None]:
    """Says on a terminal what takes some seconds, and takes it back at the end."""
    shown = sys.stderr.isatty()
    print(what if shown else "", end="\r" if shown else "", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print(" " * len(what) if shown else "", end="\r" if shown else "", file=sys.stderr, flush=True)


def _told(error: OSError) -> str:
    """What the system refused, without its number."""
    if error.filename is None or error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror.lower()}"


def _complain(verb: str, what: str, code: int) -> int:
    from simdistill.support.checks import printable

    print(printable(f"simdistill {verb}: {' '.join(what.split())}"), file=sys.stderr)
    return code
