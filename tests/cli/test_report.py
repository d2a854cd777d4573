import re
from html.parser import HTMLParser

import pytest


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections, self.sources = list[str](), list[str]()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "section":
            self.sections.append(given["id"])
        if "src" in given:
            self.sources.append(given["src"])


@pytest.mark.slow
def test_a_page_about_a_model_stands_alone(run, model, data, tmp_path):
    out = tmp_path / "model.html"
    result = run("report", model, "--data", data, "--out", out)
    assert result.exit_code == 0, result.output
    text = out.read_text(encoding="utf-8")
    page = _Page(text)
    assert page.sections == ["training", "latents", "accuracy", "effects", "trust", "model"]
    assert len(page.sources) == 1 + 3 + 6 + 1  # losses; cell type, perturbation, batch; A and B in three types; effects
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert re.search(r"correlation of −?\d\.\d\d \(median of 6 pairs\)", text)
    assert run("report", model, "--out", out).exit_code == 2  # is there
