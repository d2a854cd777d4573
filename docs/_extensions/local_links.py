"""Sphinx extension: after the pages are written, every local link must lead to a file and, if it names one, an anchor.

Cross-references are checked by Sphinx itself; this also sees raw HTML, images, downloads and `llms.txt`.
"""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.util import logging

_MARKDOWN_LINK = re.compile(r"\]\(([^)\s]+)\)")
_LOG = logging.getLogger(__name__)


class _Page(HTMLParser):
    """Links and anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links, self.anchors = set[str](), set[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.links.add(value)


def broken_links(root: Path) -> list[str]:
    """Say, for each local link below `root` that leads nowhere, where it stands and what it says."""
    files = [path for path in sorted(root.rglob("*.html")) if "_static" not in path.relative_to(root).parts]
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in files}
    links = [(path, link) for path, page in pages.items() for link in sorted(page.links)]
    for path in sorted(root.glob("*.txt")):
        links += [(path, link) for link in _MARKDOWN_LINK.findall(path.read_text(encoding="utf-8"))]
    return [f"{path.relative_to(root)}: {link}" for path, link in links if not _leads_somewhere(path, link, pages)]


def _leads_somewhere(path: Path, link: str, pages: dict[Path, _Page]) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return True  # on another machine, which may be down
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    anchor = unquote(parts.fragment)
    if not target.is_file():
        return False
    return not anchor or target not in pages or anchor in pages[target].anchors


def _check(app, exception) -> None:
    if exception is None and app.builder.name == "html":
        for broken in broken_links(Path(app.outdir).resolve()):
            _LOG.warning("local link leads nowhere: %s", broken, type="local_links")


def setup(app):
    app.connect("build-finished", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
