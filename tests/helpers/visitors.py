"""Those who visit a study's site without a browser."""

import re

from starlette.testclient import TestClient

from simdistill.study.site import application
from simdistill.web.door import Door
from simdistill.web.hosts import Hosts

NAMES = ("study.test",)


def visitor(asked, base="http://study.test"):
    """Somebody new."""
    return TestClient(Door(application(asked.folder, asked.database), Hosts("127.0.0.1", NAMES)), base_url=base)


def cookie(asked, whose="participant"):
    """The name of the study's cookie."""
    return f"{whose}-{asked.folder.settings.identity[:8]}"


def seal(html):
    """The seal of a page's forms."""
    return re.findall(r'name="seal" value="([0-9a-f]{64})"', html)[-1]


def follow(client, link):
    """Open a personal link, and say that it is one's own."""
    return client.post(link, data={"seal": seal(client.get(link).text)})


def join(client):
    """Consent; the page of the first pair."""
    return client.post("/join", data={"seal": seal(client.get("/").text), "consent": "yes"})
