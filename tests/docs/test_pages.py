"""The pages themselves: every room has its place, and every link in the tree leads somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)\s#]+)[^)\s]*\)")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_lead_to_files(page):
    links = _LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_room_is_on_the_api_page():
    named = set(re.findall(r"^   cfmvc_scvi\.(\w+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE))
    folders = {path.parent.name for path in (ROOT / "src" / "cfmvc_scvi").glob("*/__init__.py")}
    files = {path.stem for path in (ROOT / "src" / "cfmvc_scvi").glob("[!_]*.py")}
    assert (folders | files) - named == {"callbacks", "cli"}  # told of in words there, and in command_line.md


@pytest.mark.extra
def test_notebooks_are_what_their_sources_say():
    jupytext = pytest.importorskip("jupytext")
    sources = {path.stem: path for path in (ROOT / "tutorials").glob("*.py")}
    notebooks = {path.stem: path for path in (ROOT / "docs" / "tutorials").glob("*.ipynb")}
    index = (ROOT / "docs" / "tutorials" / "index.md").read_text().split("```")[1]
    assert sources.keys() == notebooks.keys() == set(index.split()[3:])
    stale = [
        name
        for name, path in sources.items()
        if [cell.source for cell in jupytext.read(path).cells]
        != [c.source for c in jupytext.read(notebooks[name]).cells]
    ]
    assert stale == [], f"run: python docs/execute_tutorials.py {' '.join(stale)}"


def test_llms_txt_names_pages_that_exist():
    pages = re.findall(r"\]\(([\w/]+)\.html\)", (ROOT / "docs" / "llms.txt").read_text())
    assert pages
    assert [page for page in pages if not (ROOT / "docs" / f"{page}.md").exists()] == []
