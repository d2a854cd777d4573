import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from cfmvc_scvi.benchmark.report import write_report
from cfmvc_scvi.errors import DataError, UnknownConditionError


class _Page(HTMLParser):
    """What a reader gets: text in order, images, and all that points elsewhere."""

    def __init__(self, source):
        super().__init__()
        self.text, self.images, self.addresses, self.tags, self._inside = [], [], [], [], []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        self.addresses += [values[name] for name in ("src", "href", "srcset", "data", "action") if values.get(name)]
        if tag == "img":
            self.images.append(values)
        if tag not in ("meta", "img", "br", "link"):
            self._inside.append(tag)

    def handle_endtag(self, tag):
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data):
        if data.strip() and not {"style", "title"} & set(self._inside):
            self.text.append(" ".join(data.split()))


def _page(path):
    return _Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(store, adata, tmp_path_factory):
    return _page(write_report(store, adata, tmp_path_factory.mktemp("report")))


def _measured(store, tmp_path):
    """A copy of the store with calibration and trust."""
    copy = tmp_path / "measured"
    shutil.copytree(store, copy)
    scores = pd.read_csv(copy / "scores.csv")
    own = scores[(scores["method"] == "CFMVC") & (scores["metric"] == "pearson_delta")]
    stated = {"trust": own["value"], "relative_error": 1 - own["value"], "coverage_50": 0.4, "coverage_90": 0.8}
    more = [own.assign(metric=metric, value=value) for metric, value in stated.items()]
    pd.concat([scores, *more]).to_csv(copy / "scores.csv", index=False)
    return copy


def test_first_line_is_the_verdict(page):
    assert re.match(r"CFMVC (beats|does not beat) the best simple baseline on .* metrics", page.text[0])


def test_nothing_outside_the_page_is_needed(page):
    assert page.addresses
    assert all(re.match(r"#|data:image/png;base64,", address) for address in page.addresses)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)


def test_every_image_says_what_it_shows(page):
    assert len(page.images) == 1 + 1 + 3 * 3  # skill, joint UMAP, and three for each of three types
    assert all(len(image["alt"]) > 30 for image in page.images)
    assert sum("Predicted against true effect" in image["alt"] for image in page.images) == 3


def test_figures_and_tables_have_captions(page):
    assert page.tags.count("figcaption") == len(page.images)
    assert page.tags.count("caption") == page.tags.count("table") == 5


def test_page_follows_the_colours_of_the_system(store, adata, tmp_path):
    source = write_report(store, adata, tmp_path, n_shown=0).read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in source and "width=device-width" in source


def test_model_is_compared_with_each_method(page):
    start = page.text.index("CFMVC minus")
    later = page.text[start:]
    assert [name for name in later if name in ("no change", "mean shift", "CFMVC, no flow", "ceiling")][:3] == [
        "no change",
        "mean shift",
        "CFMVC, no flow",
    ]
    assert any(" to " in text for text in later[:30])


def test_what_was_not_measured_is_left_out_in_one_sentence(page):
    text = " ".join(page.text)
    assert "states no intervals" in text and "states no trust scores" in text
    assert "before the truth" not in page.text


def test_calibration_and_trust_are_shown_where_they_were_measured(store, adata, tmp_path):
    page = _page(write_report(_measured(store, tmp_path), adata, tmp_path / "out"))
    text = " ".join(page.text)
    assert "40.0% for 50%, 80.0% for 90%" in text
    assert "over 3 held-out conditions is −1.00" in text
    assert "before the truth" in page.text  # a column of the table of conditions
    assert [image["alt"][:12] for image in page.images[-2:]] == ["Coverage of ", "Error of 3 h"]


def test_what_the_flow_adds(page, store, adata, tmp_path):
    assert "'CFMVC, no flow' has the first two only" in " ".join(page.text)
    other = _page(write_report(store, adata, tmp_path, without_flow="other", n_shown=0))
    assert "no method called 'other'" in " ".join(other.text)


def test_only_some_conditions_have_figures_if_there_are_many(store, adata, tmp_path):
    page = _page(write_report(store, adata, tmp_path, n_shown=2))
    assert "Figures are shown for 2 of 3 conditions" in " ".join(page.text)
    assert len(page.images) == 2 + 3 * 2


def test_names_in_the_data_cannot_become_markup(write_store, tiny_adata, tmp_path):
    script, image = "<script>alert(1)</script>", "\"><img src=x onerror='x'>"
    adata = tiny_adata[tiny_adata.obs["cell_type"] != "mono"].copy()
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(str).replace({"A": script, "B": "control"})
    adata.obs["cell_type"] = adata.obs["cell_type"].astype(str).replace({"T": image})
    adata.var_names = [f"<b>{name}</b>&" for name in adata.var_names]
    store = write_store(adata, tmp_path / "run", seeds=1)
    page = _page(write_report(store, adata, tmp_path / "out", title="</title><script>", command="<script>"))
    assert not {"script", "b"} & set(page.tags) and len(page.images) == 8
    assert "x" not in page.addresses
    assert script in page.text and image in page.text


def test_the_call_that_repeats_the_run_does_not_tell_where_it_was(page, store):
    setup = {"perturbation_key": "perturbation", "control_category": "control", "labels_key": "cell_type"}
    assert f"cfmvc_scvi.tl.benchmark(adata, 'cell_type', setup={setup}, seeds=[0, 1], out='run')" in page.text
    assert str(store.parent) not in " ".join(page.text)


def test_limits_name_what_the_intervals_are_drawn_over(page, write_store, tiny_adata, tmp_path):
    assert "Intervals come from 3 contexts." in " ".join(page.text)
    one = tiny_adata[(tiny_adata.obs["perturbation"] != "B").to_numpy()].copy()
    store = write_store(one, tmp_path / "run", seeds=1, only=["T"])
    text = " ".join(_page(write_report(store, one, tmp_path / "out", n_shown=0)).text)
    assert "There is one held-out condition, hence no interval" in text and "Intervals come from" not in text


def test_same_store_same_page(store, adata, tmp_path):
    first, second = (write_report(store, adata, tmp_path / name, n_shown=1) for name in "ab")
    assert first.read_text() == second.read_text()


def test_data_are_those_of_the_run_and_stay_as_they_are(store, adata, tmp_path):
    cells = adata.copy()
    write_report(store, cells, tmp_path, n_shown=0)
    assert (cells.X != adata.X).nnz == 0
    cells.X.data[0] += 1
    with pytest.raises(DataError, match="fingerprint"):
        write_report(store, cells, tmp_path)


def test_bad_input(store, adata, tmp_path):
    with pytest.raises(UnknownConditionError, match="'CPA' has no scores; methods: no change"):
        write_report(store, adata, tmp_path, model="CPA")
    with pytest.raises(DataError, match="run"):
        write_report(tmp_path / "nowhere", adata, tmp_path)
    copy = _measured(store, tmp_path)
    asked = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({name: asked[name] for name in asked if name != "columns"}))
    with pytest.raises(DataError, match="does not say: columns"):
        write_report(copy, adata, tmp_path)


def test_scores_that_are_not_defined_are_dashes(store, adata, tmp_path):
    copy = _measured(store, tmp_path)
    scores = pd.read_csv(copy / "scores.csv")
    undefined = (scores["metric"] == "sig_jaccard") & (scores["context"] == "T")
    no_room = (scores["metric"] == "de_overlap") & (scores["method"] == "ceiling")
    scores.loc[undefined, "value"], scores.loc[no_room, "value"] = np.nan, 0.0
    scores.to_csv(copy / "scores.csv", index=False)
    page = _page(write_report(copy, adata, tmp_path / "out", n_shown=1))
    assert "–" in page.text and "Skill is not defined for DE overlap" in " ".join(page.text)
    words = " ".join(page.text + [image["alt"] for image in page.images]).split()
    assert not {"nan", "inf", "−inf", "nan."} & {word.strip(",;:()%").lower() for word in words}


def test_no_skill_no_figure_of_it(store, adata, tmp_path):
    copy = _measured(store, tmp_path)
    scores = pd.read_csv(copy / "scores.csv")
    scores = scores[scores["method"] != "ceiling"]
    floor = scores[scores["method"] == "no change"].assign(method="ceiling")
    pd.concat([scores, floor]).to_csv(copy / "scores.csv", index=False)
    page = _page(write_report(copy, adata, tmp_path / "out", n_shown=0))
    assert not any("Skill of" in image["alt"] for image in page.images)
