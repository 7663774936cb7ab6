"""`simdistill study`: a questionnaire in which people choose the better of two images for each prompt."""

from collections.abc import Sequence
from importlib import import_module

from simdistill.config.options import first_word

STEPS = {
    "new": "make pairs of images: of a run's student and teacher, or two folders",
    "serve": "serve the questionnaire as a web page, with pages for the owner",
    "results": "show the results: rates with intervals, tests, bias, agreement",
    "simulate": "simulate votes, and estimate how many participants are needed",
}
ABOUT = """Ask people which of two images is better, as the paper does (B.4).

{steps}

`simdistill study STEP --help` shows the options of each step.

To try it all with a shipped student and its teacher:

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
