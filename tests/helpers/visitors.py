"""Those who visit a study's site without a browser."""

import re

from starlette.testclient import TestClient

from simdistill.study.site import application


def visitor(asked, base="http://study.test"):
    """Somebody new."""
    return TestClient(application(asked.folder, asked.database), base_url=base)


def cookie(asked, whose="participant"):
    """The name of the study's cookie."""
    return f"{whose}-{asked.folder.settings.identity[:8]}"


def seal(html):
    """The seal of a page's forms."""
    return re.findall(r'name="seal" value="([0-9a-f]{64})"', html)[-1]


def join(client):
    """Consent; the page of the first pair."""
    return client.post("/join", data={"seal": seal(client.get("/").text), "consent": "yes"})
