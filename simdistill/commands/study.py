"""`simdistill study`: a questionnaire in which people see two pictures a prompt and say which is better."""

from collections.abc import Sequence
from importlib import import_module

from simdistill.config.options import first_word

STEPS = {
    "new": "make the pairs of pictures: of a run's student and its teacher, or of two folders",
    "serve": "show them to participants: a web page with consent, pair after pair, and the owner's pages",
    "results": "tell what the votes say: rates with intervals, tests, bias, agreement; a table and a picture",
    "simulate": "rehearse with simulated votes, and plan how many participants are needed",
}
ABOUT = """Ask people which of two pictures is better, as the paper does (B.4), and say what their answers are worth.

{steps}

`simdistill study STEP --help` tells each step's options. To try it all, on a shipped student and its teacher:

  simdistill study new studies/clothes
  simdistill study serve studies/clothes
  simdistill study results studies/clothes
"""


def run(words: Sequence[str]) -> None:
    """`simdistill study STEP …`."""
    if words and words[0] in ("-h", "--help"):
        steps = "\n".join(f"  {name:10}{what}" for name, what in STEPS.items())
        return print(ABOUT.format(steps=steps))
    step, rest = first_word(words, "study", "STEP", STEPS)
    try:
        verb = import_module(f"simdistill.commands.study_{step}")
    except ModuleNotFoundError as error:
        raise ValueError(f'{error.name} is missing: pip install "simdistill[study]"') from error
    return verb.run(rest)
