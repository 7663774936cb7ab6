"""`simdistill study serve`: the questionnaire as a web page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from simdistill.config.options import first_word, parse_options
from simdistill.study.database import Database
from simdistill.study.folder import StudyFolder
from simdistill.study.site import serve_study


@dataclass(frozen=True)
class _Serve:
    study: Positional[Path] = Path()
    """Folder of the study."""
    port: int = 8767
    """Port of the page."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 shows the page to the whole network. For the Internet put a server with HTTPS
    before it, on the same machine."""
    database: str = ""
    """URL of the votes' database, as postgresql+psycopg://user@host/name; votes.sqlite3 in the study's folder if not
    given."""


ABOUT = """Serve a study. Participants read what it is about, agree, and see pair after pair: by mouse, touch or keys
(1, 2, and 0 for a tie), with or without JavaScript. Every vote is on the disk before the next pair is shown. The
owner's pages open by the link that is printed.

  simdistill study serve studies/clothes
  simdistill study serve studies/clothes --host 0.0.0.0 --port 80
"""


def run(words: Sequence[str]) -> None:
    """`simdistill study serve STUDY …`."""
    path, rest = first_word(words, "study serve", "STUDY")
    options = parse_options(_Serve(), [path, *rest], "study serve STUDY", ABOUT)
    study = StudyFolder.open(options.study)
    database = Database(options.database or study.database, study.settings.identity)
    serve_study(study, database, options.host, options.port)
