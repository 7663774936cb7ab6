"""`python -m docs.faces make|sheet|judge`: the data set, a look at it, the classifier that judges pictures."""

import argparse
import sys
from pathlib import Path


def main() -> None:
    """Do what is asked; the exit code is 2 if that cannot be."""
    parser = argparse.ArgumentParser(prog="python -m docs.faces", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    make = verbs.add_parser("make", help="draw the faces: OUT/train.zip, OUT/held-out.zip and their captions as .jsonl")
    make.add_argument("out", type=Path, metavar="OUT")
    make.add_argument("--count", type=int, default=40_000, help="faces to train on (default: %(default)s)")
    make.add_argument("--held-out", type=int, default=4_000, help="faces held out (default: %(default)s)")
    make.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    sheet = verbs.add_parser("sheet", help="a contact sheet of random faces with their captions")
    sheet.add_argument("out", type=Path, metavar="OUT", help="the folder that `make` wrote")
    sheet.add_argument("picture", type=Path, metavar="PICTURE.png")
    sheet.add_argument("--part", choices=("train", "held-out"), default="train", help="default: %(default)s")
    sheet.add_argument("--count", type=int, default=24, help="default: %(default)s")
    sheet.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    judge = verbs.add_parser("judge", help="train the classifier of all nine attributes, and test it on held-out faces")
    judge.add_argument("data", type=Path, metavar="OUT", help="the folder that `make` wrote")
    judge.add_argument("--out", type=Path, default=Path("judge.safetensors"), help="default: %(default)s")
    judge.add_argument("--iterations", type=int, default=2_500, help="default: %(default)s")
    judge.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    asked = parser.parse_args()
    try:
        if asked.verb == "make":
            from docs.faces.making import make as made

            for path in made(asked.out, asked.count, asked.held_out, asked.seed):
                print(path)
        elif asked.verb == "sheet":
            from docs.faces.sheet import sheet as write_sheet

            write_sheet(asked.out / f"{asked.part}.zip", asked.picture, asked.count, asked.seed)
            print(asked.picture)
        else:
            import torch

            from docs.faces.judge import read_judge, report, train

            torch.set_num_threads(1)  # too small a network to gain from more
            train(asked.data, asked.out, asked.iterations, asked.seed)
            for name, share in report(read_judge(asked.out), asked.data).items():
                print(f"{name:12} {share:.4f}")
            print(asked.out)
    except (ValueError, OSError) as error:
        print(f"python -m docs.faces {asked.verb}: error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
