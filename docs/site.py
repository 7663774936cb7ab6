"""`python -m docs.site`: build the site of these pages into site/, and find what is wrong with it.

Zensical's own checks, made errors by `strict`, know Markdown links and names of the API only. On the built pages every
link, picture, script and style sheet is followed here; nothing may be loaded from elsewhere, and every page must be
within reach of the first.
"""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parent.parent


def main() -> None:
    """Build and check; the exit code is 1 if anything is wrong."""
    build(ROOT)
    found = problems(ROOT / "site")
    for problem in found:
        print(problem, file=sys.stderr)
    if found:
        raise SystemExit(1)
    print("site/index.html: open it, or see it with its search by `python -m http.server --directory site`")


def build(root: Path) -> None:
    """From `root`/zensical.toml and `root`/docs to `root`/site, with warnings as errors."""
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        said = re.sub(r"\x1b\[[0-9;]*m", "", f"{done.stdout}\n{done.stderr}")  # without colours
        raise SystemExit(said)


def problems(site: Path) -> list[str]:
    """What is wrong with a built site, a line each."""
    pages = {path: _Page(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}
    found: list[str] = []
    reached, waiting = set[Path](), [site / "index.html"]
    while waiting:
        path = waiting.pop()
        if path in reached or path not in pages:
            continue
        reached.add(path)
        for link in pages[path].links:
            target, anchor = _resolve(path, link)
            if target is None:
                continue
            if not target.exists():
                found.append(f"{path.relative_to(site)}: {link} leads nowhere")
            elif target in pages and anchor and anchor not in pages[target].anchors:
                found.append(f"{path.relative_to(site)}: {link}: the page has no such place")
            waiting.append(target)
    for path, page in pages.items():
        found += [
            f"{path.relative_to(site)}: loads {link} from elsewhere" for link in page.loads if urlsplit(link).netloc
        ]
        if path not in reached:
            found.append(f"{path.relative_to(site)}: no page leads here; put it into the nav of zensical.toml")
    return sorted(set(found))


def _resolve(page: Path, link: str) -> tuple[Path | None, str]:
    """The file that a link of a page leads to, or None for one that leaves the site, and the place on it."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None, ""
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    return target / "index.html" if target.is_dir() else target, unquote(parts.fragment)


class _Page(HTMLParser):
    """The links of a page, what it loads, and the places that a link can lead to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called by the parser."""
        values = {name: value for name, value in attrs if value}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        loads = [values[name] for name in ("src", "data", "poster") if name in values]
        if tag in ("link", "image", "use") and "href" in values:
            loads.append(values["href"])
        self.loads += loads
        self.links += [*loads, *([values["href"]] if tag == "a" and "href" in values else [])]


if __name__ == "__main__":
    main()
