"""`simdistill study`: a questionnaire in which people see two pictures a prompt and say which is better."""

from collections.abc import Sequence
from importlib import import_module

from simdistill.options import first_word

STEPS = {
    "new": "make the pairs of pictures: of a run's student and its teacher, or of two folders",
}
ABOUT = """Ask people which of two pictures is better, as the paper does (B.4), and say what their answers are worth.

{steps}

`simdistill study STEP --help` tells each step's options. To try it all, on a shipped student and its teacher:

  simdistill study new studies/clothes
"""


def run(words: Sequence[str]) -> None:
    """`simdistill study STEP …`."""
    if words and words[0] in ("-h", "--help"):
        steps = "\n".join(f"  {name:10}{what}" for name, what in STEPS.items())
        return print(ABOUT.format(steps=steps))
    step, rest = first_word(words, "study", "STEP", STEPS)
    return import_module(f"simdistill.commands.study_{step}").run(rest)
