"""`simdistill study serve`: serve the questionnaire as a web page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from simdistill.commands.common import DatabaseURL, Host, PublicName
from simdistill.config.options import first_word, parse_options
from simdistill.study.database import Database
from simdistill.study.folder import StudyFolder
from simdistill.study.site import serve_study


@dataclass(frozen=True)
class _Serve:
    study: Positional[Path] = Path()
    """Folder of the study."""
    port: int = 8767
    """Port to listen on."""
    host: Host = "127.0.0.1"
    public_name: PublicName = ()
    trust_proxy: tuple[str, ...] = ()
    """Addresses of servers in front of this one, such as 127.0.0.1, whose X-Forwarded-For is believed."""
    database: DatabaseURL = ""


ABOUT = """Serve a study as a web page for participants, with pages for its owner.

  simdistill study serve studies/clothes
  simdistill study serve studies/clothes --host 0.0.0.0 --port 80

- Participants read what the study is about, consent, and see one pair after
  another. They answer by mouse, touch or keys (1, 2, and 0 for a tie), with or
  without JavaScript.
- Every vote is on disk before the next pair is shown.
- The owner's pages open by the printed link.
- On the Internet, put a server with HTTPS in front of it, on the same machine:
    simdistill study serve studies/clothes --public-name study.example.org \
        --trust-proxy 127.0.0.1
"""


def run(words: Sequence[str]) -> None:
    """`simdistill study serve STUDY …`."""
    path, rest = first_word(words, "study serve", "STUDY")
    options = parse_options(_Serve(), [path, *rest], "study serve STUDY", ABOUT)
    study = StudyFolder.open(options.study)
    database = Database(options.database or study.database, study.settings.identity)
    serve_study(study, database, options.host, options.port, options.public_name, options.trust_proxy)
