"""The page: sections written as one HTML file that needs no other."""

from __future__ import annotations

__all__ = ["render"]

from collections.abc import Sequence
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from cfmvc_scvi.benchmark.report.sections import Section


def render(title: str, verdict: str, lead: str, sections: Sequence[Section], footer: str, *, all_won: bool) -> str:
    """Write the page.

    All text is escaped: names in the data cannot become markup. Nothing refers to another file or address.

    Parameters
    ----------
    title
        Of the window; not in the page, whose first line is the verdict.
    verdict, lead
        First line, and the sentence below it.
    sections
        In the order of reading.
    footer
        Last line.
    all_won
        Whether the model wins in all metrics, for the colour of the first line's border.
    """
    source = files(__package__).joinpath("template.html").read_text(encoding="utf-8")
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(source)
    parts = {"title": title, "verdict": verdict, "lead": lead, "sections": sections, "footer": footer}
    return template.render(**parts, all_won=all_won)
