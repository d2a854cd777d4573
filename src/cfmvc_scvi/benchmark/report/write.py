"""From the store of a run to its report."""

from __future__ import annotations

__all__ = ["write_report"]

import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from cfmvc_scvi import metrics
from cfmvc_scvi._keys import METRICS
from cfmvc_scvi.benchmark.compare import compare, verdict
from cfmvc_scvi.benchmark.report import sections as parts
from cfmvc_scvi.benchmark.report import tables
from cfmvc_scvi.benchmark.report.figures import GroupCells, joint_coordinates
from cfmvc_scvi.benchmark.report.page import render
from cfmvc_scvi.benchmark.report.store import Run, read_run
from cfmvc_scvi.benchmark.request import NO_FLOW
from cfmvc_scvi.benchmark.score import CEILING
from cfmvc_scvi.benchmark.summary import losses, skills, summarise
from cfmvc_scvi.errors import UnknownConditionError

_N_UMAP = 1500  # cells of each role; a UMAP of three times as many takes about 20 s


def write_report(
    store: str | os.PathLike[str],
    adata: AnnData,
    out: str | os.PathLike[str],
    model: str = "CFMVC",
    *,
    without_flow: str = NO_FLOW,
    title: str | None = None,
    n_shown: int = 12,
    command: str | None = None,
    seed: int = 0,
) -> Path:
    """Write a page that shows whether a model's predictions are to be believed on these data.

    Its first line says whether the model beats the best simple baseline, and on which metrics not. The page is one HTML
    file with its images inside: it can be sent, printed and read without a network.

    Parameters
    ----------
    store
        Directory of a finished run of `tl.benchmark`. Coverage and trust are shown if the model states any.
    adata
        The data of that run: UMI counts in X, not altered.
    out
        Directory for ``index.html``; made if it is not there.
    model
        Method that is judged.
    without_flow
        Method that is the model without its flow; if the run has none, the page says so.
    title
        Of the window; the name of the model and what was held out if None.
    n_shown
        Held-out conditions with figures; of more, some at equal steps from the worst to the best.
    command
        What repeats the run; None writes a call of `tl.benchmark` with its default methods.
    seed
        Of the cells drawn for the joint UMAP.

    Returns
    -------
    Path of ``index.html``.

    Raises
    ------
    UnknownConditionError
        If the model has no scores.
    DataError
        If the store has no finished run, or the data are not those of the run.
    """
    run = read_run(store, adata)
    scores, methods = run.scores, list(run.scores["method"].unique())
    if model not in methods:
        raise UnknownConditionError(f"'{model}' has no scores; methods: {', '.join(methods)}.")
    compared, summary = compare(scores, model), summarise(losses(scores))
    pairs = {name: compare(scores, model, [name]) for name in methods if name not in (model, CEILING)}
    first = int(scores["seed"].min())
    groups = [_cells(run, adata, model, key, first) for key in _chosen(run.single, model, n_shown)]
    found = [group for group in groups if group is not None]
    coordinates = joint_coordinates(found, _N_UMAP, np.random.default_rng(seed)) if found else None
    trust = run.trust_of(model)
    table = tables.condition_table(run.single, compared, model, run.sizes, None if trust is None else trust["trust"])
    sections = [
        parts.metric_by_metric(
            compared, skills(summary)[list(compared.index)].drop(index=without_flow, errors="ignore"), model
        ),
        parts.parts(pairs.get(without_flow), model, without_flow),
        parts.conditions(table, found, len(run.groups), first, _notes(run.single, model), coordinates),
        parts.trusted(run.calibration_of(model), trust, model),
        parts.pairs(pairs, model),
        parts.all_methods(tables.method_table(summary, _cpu_seconds(scores), model)),
        parts.limits(compared, run.sizes, scores["seed"].nunique(), model),
        parts.provenance(_facts(run, adata), command or _command(run)),
    ]
    page = render(
        title or f"{model}, held out: {run.asked['holdout']}",
        verdict(compared, model),
        _lead(run),
        sections,
        f"Written by cfmvc-scvi {version('cfmvc-scvi')}. Everything stands in this file.",
        all_won=bool((compared["outcome"] == "win").all()),
    )
    path = Path(out) / "index.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _cells(run: Run, adata: AnnData, model: str, key: tuple[str, str], seed: int) -> GroupCells | None:
    """Cells of a held-out group; None if the store has no prediction of it."""
    genes = [str(name) for name in adata.var_names]
    prediction, group = run.prediction(model, key, seed, genes), run.groups[key]
    if prediction is None:
        return None
    cells = {
        "control": metrics.log_normalize(adata[group.control].X),
        "true": metrics.log_normalize(adata[group.true].X),
        "predicted": prediction.log_values(),
    }
    return GroupCells(*key, cells, genes)


def _chosen(single: pd.DataFrame, model: str, n_shown: int) -> list[tuple[str, str]]:
    """Held-out groups to draw, in the order of the run: all, or some at equal steps of Pearson Delta."""
    own = single[(single["method"] == model) & (single["metric"] == "pearson_delta")]
    values = own.groupby(["condition", "context"], sort=False)["value"].mean()
    if len(values) <= n_shown:
        return list(values.index)
    if n_shown == 0:
        return []
    ranked = values.sort_values(kind="stable").index
    steps = np.unique(np.linspace(0, len(ranked) - 1, n_shown).round().astype(int))
    return [ranked[step] for step in steps]


def _notes(single: pd.DataFrame, model: str) -> dict[tuple[str, str], str]:
    """One line of scores for each held-out group."""
    notes = {}
    for key, group in single[single["method"] == model].groupby(["condition", "context"]):
        table = summarise(losses(group)).loc[model]
        shown = [name for name in ("pearson_delta", "energy", "sig_jaccard") if name in table]
        notes[key] = ", ".join(f"{METRICS[name].label} {tables.number(table[name], 2)}" for name in shown)
    return notes


def _cpu_seconds(scores: pd.DataFrame) -> dict[str, float]:
    """Mean CPU seconds by method, of those that told them: a prediction from a file need not."""
    seconds = scores[(scores["metric"] == "cpu_seconds") & (scores["value"] > 0)]
    return {str(name): float(value) for name, value in seconds.groupby("method")["value"].mean().items()}


def _lead(run: Run) -> str:
    sizes = run.sizes
    n_conditions, n_contexts = (len(set(sizes.index.get_level_values(name))) for name in ("condition", "context"))
    return (
        f"Held out by {run.asked['holdout']}: {_many(len(sizes), 'group')} of perturbed cells "
        f"({_many(n_conditions, 'condition')}, {_many(n_contexts, 'context')}), {sizes['true'].sum():,} cells in all, "
        f"predicted from control cells by models that never saw them; {_many(run.scores['seed'].nunique(), 'seed')}."
    )


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _facts(run: Run, adata: AnnData) -> dict[str, str]:
    asked = run.asked
    return {
        "data": f"{adata.n_obs:,} cells, {adata.n_vars:,} genes; fingerprint {asked['fingerprint']}",
        "held out": f"{asked['holdout']}, {_many(len(run.groups), 'group')}",
        "columns of obs": _pairs(asked["columns"]),
        "seeds": ", ".join(map(str, sorted(run.scores["seed"].unique()))),
        "methods": "; ".join(run.scores["method"].unique()),
        "versions": _pairs(asked["versions"]),
    }


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)


def _command(run: Run) -> str:
    seeds = [int(seed) for seed in sorted(run.scores["seed"].unique())]
    setup = {name: value for name, value in run.asked["setup"].items() if value is not None}
    place = run.store.directory.name  # not the whole path: the page is sent to others
    return f"cfmvc_scvi.tl.benchmark(adata, {run.asked['holdout']!r}, setup={setup!r}, seeds={seeds}, out={place!r})"
