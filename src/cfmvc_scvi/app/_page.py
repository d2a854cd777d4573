"""The page itself, a Streamlit script: `streamlit run _page.py -- MODEL DATA.h5ad`. It has no mathematics."""

from __future__ import annotations

__all__: list[str] = []

import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import streamlit as st
from anndata import AnnData, read_h5ad

from cfmvc_scvi import app, pl
from cfmvc_scvi.data import assert_self_contained
from cfmvc_scvi.errors import CFMVCError
from cfmvc_scvi.model import CFMVC

_TRUST = {
    "high": "most of the effect is expected to be right",
    "medium": "about half of it is",
    "low": "less than half of it is",
}


@st.cache_resource(show_spinner="loading model and cells")
def _load(model_dir: str, data: str) -> tuple[CFMVC, AnnData]:
    assert_self_contained(Path(data))
    return CFMVC.load(model_dir, adata=False), read_h5ad(data)


@st.cache_resource(show_spinner="predicting", max_entries=16)
def _answer(model_dir: str, data: str, question: app.Question) -> app.Answer:
    model, adata = _load(model_dir, data)
    return app.answer(model, adata, question)


@st.cache_data(show_spinner=False, max_entries=4)
def _h5ad(model_dir: str, data: str, question: app.Question) -> bytes:
    return app.h5ad_bytes(_answer(model_dir, data, question).cells["predicted"])


def _ask(offered: app.Choices) -> app.Question:
    """Let the user choose, in the sidebar."""
    with st.sidebar:
        st.header("What if …")
        labels = st.selectbox("these cells", offered.labels, key="labels") if offered.labels else None
        sample = st.selectbox("of this sample", offered.samples, key="sample") if offered.samples else None
        chosen = st.multiselect(
            "had been given",
            offered.perturbations,
            default=offered.perturbations[:1],
            key="perturbations",
            help="Several together are a combination.",
        )
        dose = None
        if offered.doses:
            dose = st.number_input("at the dose", min_value=0.0, value=offered.doses[-1], key="dose")
        n_cells = st.slider("cells, at most", 20, 2000, 400, step=20, key="n_cells")
        seed = st.number_input("seed", min_value=0, value=0, key="seed")
    return app.Question(tuple(chosen), labels, sample, dose, n_cells, int(seed))


def _trust(trust: Any) -> None:
    left, middle, right = st.columns(3)
    word = str(trust["word"])
    left.metric("trust in the effect", f"{trust['trust']:.2f}", word, delta_color="off", delta_arrow="off")
    middle.metric(
        "expected error", f"{trust['expected_error']:.0%}", "of the effect's size", delta_color="off", delta_arrow="off"
    )
    right.metric("contexts that saw it", int(trust["n_contexts"]))
    seen = "was measured here" if trust["observed"] else "was never measured here"
    notes = [f"This condition {seen}: {_TRUST[word]}."]
    if trust["extrapolated"]:
        notes.append("The dose lies beyond those seen.")
    if trust["composed"]:
        notes.append("The combination was never seen; its effect is the sum of its parts.")
    st.caption(" ".join(notes))


def _figure(draw: Any, size: tuple[float, float]) -> None:
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    draw(ax)
    st.pyplot(figure, width="stretch")
    plt.close(figure)


def _show(answer: app.Answer, question: app.Question) -> None:
    where = ", ".join(part for part in (question.labels, question.sample) if part)
    what = question.condition if question.dose is None else f"{question.condition} at {question.dose:g}"
    st.title(f"{what} in {where}" if where else what)
    _trust(answer.trust)
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Where the cells go")
        points, roles = answer.joint.obsm["X_umap"], answer.joint.obs["role"]
        _figure(lambda ax: pl.embedding(points, roles, ax=ax), (5.2, 4.0))
    with right:
        st.subheader("Genes that change most")
        table = answer.effect[["gene", "control", "delta", "low", "high"]].head(200)
        numbers = {name: st.column_config.NumberColumn(format="%.2f") for name in table.columns[1:]}
        st.dataframe(table, hide_index=True, height=330, width="stretch", column_config=numbers)
        st.caption("Mean log1p CP10k of control cells, and its change with an interval of 90 %.")
    st.subheader("Cell by cell")
    names = answer.effect["gene"].astype(str).tolist()
    genes = st.multiselect("genes", names, default=names[:6], key="genes", max_selections=12)
    if genes:
        _figure(lambda ax: pl.distributions(answer.values(genes), genes, ax=ax), (9.5, 3.2))
    if "true" in answer.cells:
        st.caption("Blue cells were measured under this condition; the model may have been trained on them.")


def _run(model_dir: str, data: str) -> None:
    st.set_page_config(page_title="cfmvc-scvi", layout="wide")
    plt.switch_backend("Agg")
    try:
        question = _ask(app.choices(*_load(model_dir, data)))
        answer = _answer(model_dir, data, question)
    except CFMVCError as error:
        st.error(str(error))
        st.stop()
    _show(answer, question)
    name = f"{question.condition}.h5ad".replace("/", "_")
    st.sidebar.download_button("Download the predicted cells", _h5ad(model_dir, data, question), name, key="download")
    st.sidebar.caption("A prediction chooses what to measure next; it does not replace measuring it.")


if __name__ == "__main__":
    _run(*sys.argv[1:3])
