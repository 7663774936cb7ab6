"""`python -m examples.faces VERB`: the data set of faces, its classifier and autoencoder, and metrics of faces."""

import argparse
import math
import sys
from pathlib import Path


def main() -> None:
    """Run one verb; the exit code is 2 for invalid input."""
    parser = argparse.ArgumentParser(prog="python -m examples.faces", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    make = verbs.add_parser("make", help="draw the faces: OUT/train.zip, OUT/held-out.zip and their captions as .jsonl")
    make.add_argument("out", type=Path, metavar="OUT")
    make.add_argument("--count", type=int, default=40_000, help="training faces (default: %(default)s)")
    make.add_argument("--held-out", type=int, default=4_000, help="held-out faces (default: %(default)s)")
    make.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    sheet = verbs.add_parser("sheet", help="write a contact sheet of random faces with their captions")
    sheet.add_argument("out", type=Path, metavar="OUT", help="the folder that `make` wrote")
    sheet.add_argument("picture", type=Path, metavar="PICTURE.png")
    sheet.add_argument("--part", choices=("train", "held-out"), default="train", help="default: %(default)s")
    sheet.add_argument("--count", type=int, default=24, help="default: %(default)s")
    sheet.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    judge = verbs.add_parser("judge", help="train a classifier of all nine attributes, and test it on held-out faces")
    judge.add_argument("data", type=Path, metavar="OUT", help="the folder that `make` wrote")
    judge.add_argument("--out", type=Path, default=Path("judge.safetensors"), help="default: %(default)s")
    judge.add_argument("--iterations", type=int, default=2_500, help="default: %(default)s")
    judge.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    autoencoder = verbs.add_parser("autoencoder", help="train an autoencoder of faces, for a latent teacher")
    autoencoder.add_argument("data", type=Path, metavar="OUT", help="the folder that `make` wrote")
    autoencoder.add_argument("--out", type=Path, default=Path("autoencoder"), help="default: %(default)s")
    autoencoder.add_argument("--iterations", type=int, default=3_000, help="default: %(default)s")
    autoencoder.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    measure = verbs.add_parser("measure", help="measure generated faces against real ones and their captions")
    measure.add_argument("data", type=Path, metavar="OUT", help="the folder that `make` wrote")
    measure.add_argument("--judge", type=Path, default=Path("judge.safetensors"), help="default: %(default)s")
    measure.add_argument("--prompts", type=Path, required=True, help="output of `simdistill encode OUT/held-out.jsonl`")
    measure.add_argument("--teacher", required=True, help="as for `simdistill distill`")
    measure.add_argument("--guidance", type=float, nargs="*", default=[1.0], help="of the teacher (default: 1, none)")
    everywhere = (0.0, math.inf)
    measure.add_argument(
        "--guidance-interval",
        type=float,
        nargs=2,
        default=everywhere,
        metavar=("LOW", "HIGH"),
        help="noise levels with guidance (default: all)",
    )
    measure.add_argument("--runs", type=Path, nargs="*", default=[], help="runs of students, or their .safetensors")
    measure.add_argument("--count", type=int, default=2_000, help="captions (default: %(default)s)")
    measure.add_argument("--picture", type=Path, metavar="PICTURE.png", help="where to show some of the faces")
    measure.add_argument("--shown", type=int, default=10, help="captions in the picture (default: %(default)s)")
    measure.add_argument("--page", type=Path, metavar="PAGE.md", help="where to put the table, between its markers")
    measure.add_argument("--table", default="faces", metavar="NAME", help="name of the markers (default: %(default)s)")
    asked = parser.parse_args()
    try:
        if asked.verb == "make":
            from examples.faces.making import make as made

            for path in made(asked.out, asked.count, asked.held_out, asked.seed):
                print(path)
        elif asked.verb == "sheet":
            from examples.faces.sheet import sheet as write_sheet

            write_sheet(asked.out / f"{asked.part}.zip", asked.picture, asked.count, asked.seed)
            print(asked.picture)
        elif asked.verb == "judge":
            from examples.faces.judge import read_judge, report, train

            one_thread()
            train(asked.data, asked.out, asked.iterations, asked.seed)
            for name, share in report(read_judge(asked.out), asked.data).items():
                print(f"{name:12} {share:.4f}")
            print(asked.out)
        elif asked.verb == "autoencoder":
            from examples.faces.autoencoder import restoring_error, train

            one_thread()
            train(asked.data, asked.out, asked.iterations, asked.seed)
            print(f"root mean square error on held-out faces: {restoring_error(asked.out, asked.data):.4f}")
            print(asked.out)
        else:
            one_thread()
            measured(asked)
    except (ValueError, OSError) as error:
        print(f"python -m examples.faces {asked.verb}: error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def one_thread() -> None:
    """Use one thread: networks of this size gain nothing from more."""
    import torch

    torch.set_num_threads(1)


def measured(asked: argparse.Namespace) -> None:
    """Measure all samplers, print the table, and write it and the picture where asked."""
    from rich.console import Console

    from benchmarks.tables import publish
    from examples.faces.measuring import HeldOut, players, restored, table
    from examples.faces.sheet import beside

    held_out = HeldOut(asked.data, asked.judge, asked.count)
    found = {"real": held_out.measure(held_out.pictures, 0)}
    shown = {"real": held_out.pictures[: asked.shown]}
    through = restored(asked.teacher, held_out.pictures)
    if through is not None:
        found["autoencoder"], shown["autoencoder"] = held_out.measure(through, 0), through[: asked.shown]
    for name, nfe, drawn in players(
        asked.teacher, asked.guidance, asked.runs, asked.prompts, tuple(asked.guidance_interval)
    ):
        print(f"drawing {asked.count} faces: {name}", file=sys.stderr, flush=True)
        pictures = drawn(held_out.captions)
        found[name], shown[name] = held_out.measure(pictures, nfe), pictures[: asked.shown]
    made = table(found, asked.table)
    Console(width=140).print(made.rich())
    if asked.picture:
        beside(asked.picture, held_out.captions[: asked.shown], shown)
    if asked.page:
        asked.page.write_text(publish(asked.page.read_text(encoding="utf-8"), [made]), encoding="utf-8")


if __name__ == "__main__":
    main()
