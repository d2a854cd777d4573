"""The page of one trained model: its training, its latents, its effects, and how far they can be relied on."""

from __future__ import annotations

__all__ = ["write_model_report"]

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from matplotlib.axes import Axes

from cfmvc_scvi import pl
from cfmvc_scvi.benchmark.report import figures, tables
from cfmvc_scvi.benchmark.report.page import render
from cfmvc_scvi.benchmark.report.sections import Card, Section
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.model import CFMVC
from cfmvc_scvi.pl.history import curves

_MOST_CELLS = 5000  # on a map
_MOST_CARDS = 24
_NOTHING = pd.DataFrame({name: [] for name in ("perturbation", "context", "gene", "delta", "measured", "sd")})


def write_model_report(
    model: CFMVC, out: str | os.PathLike[str], adata: AnnData | None = None, *, title: str | None = None, seed: int = 0
) -> Path:
    """Write a page that shows what a trained model is and how far its effects can be relied on.

    Accuracy is that of effects left out: each condition in each context that saw it is predicted from the others that
    did, without training again. It is of mean effects, not of cells, and the latent has seen the context; for a claim,
    see `tl.benchmark` and `write_report`.

    Parameters
    ----------
    model
        A trained model.
    out
        File (.html) to write.
    adata
        Cells for the map of the latent, with the registered columns. None: the model's own, if it has them.
    title
        Of the window.
    seed
        Draws the cells of the map.

    Returns
    -------
    Path of the page, which needs no other file.

    Raises
    ------
    NotTrainedError
        If the representation is not trained.
    DataError
        If the model has no perturbations.
    """
    if model.vocabulary is None:
        raise DataError("the model was trained without perturbations, so it has no effects to report.")
    names = list(model.vocabulary.perturbations)
    trust = pd.concat([model.get_trust(name).assign(perturbation=name) for name in names], ignore_index=True)
    seen = set(trust.loc[trust["observed"].astype(bool), "perturbation"])
    tables_left_out = [model.get_left_out_effect(name).assign(perturbation=name) for name in names if name in seen]
    left_out = pd.concat(tables_left_out, ignore_index=True) if tables_left_out else _NOTHING
    cells = model.adata if adata is None else adata
    sections = [_training(model)]
    if isinstance(cells, AnnData):
        sections.append(_latents(model, cells, seed))
    sections += [_accuracy(left_out), _effects(model, names), _trust(trust), _provenance(model)]
    scores = _scores(left_out)
    page = render(
        title or f"{type(model).__name__}: training, latents, accuracy",
        _verdict(scores),
        _lead(names, trust),
        sections,
        f"Written by cfmvc-scvi {version('cfmvc-scvi')}. Everything stands in this file.",
        all_won=bool(len(scores)) and bool((scores["correlation"] > 0.5).all()),
    )
    path = Path(out)
    path.write_text(page, encoding="utf-8")
    return path


def _scores(left_out: pd.DataFrame) -> pd.DataFrame:
    """Correlation and slope of predicted and measured effects for each pair."""
    rows: list[dict[str, Any]] = []
    for (name, context), group in left_out.groupby(["perturbation", "context"], sort=False):
        predicted, measured = group["delta"].to_numpy(), group["measured"].to_numpy()
        varies = predicted.std() > 0 and measured.std() > 0
        correlation = float(np.corrcoef(predicted, measured)[0, 1]) if varies else 0.0
        size = float(np.linalg.norm(predicted) / np.linalg.norm(measured))
        rows.append({"perturbation": name, "context": context, "correlation": correlation, "size": size})
    return pd.DataFrame(rows, columns=["perturbation", "context", "correlation", "size"])


def _verdict(scores: pd.DataFrame) -> str:
    if len(scores) == 0:
        return "No perturbation was seen in two contexts, so no effect can be left out and checked."
    median = tables.number(float(scores["correlation"].median()), 2)
    return f"Effects left out are predicted with a correlation of {median} (median of {len(scores)} pairs)."


def _lead(names: list[str], trust: pd.DataFrame) -> str:
    predicted = trust[~trust["observed"].astype(bool)]
    n_high = int((predicted["word"] == "high").sum())
    n_contexts = trust["context"].nunique()
    return (
        f"Perturbations: {len(names)}; contexts with control cells: {n_contexts}. Of {len(trust)} pairs of them, "
        f"{len(predicted)} were not measured; {n_high} of these are predicted with high trust."
    )


def _training(model: CFMVC) -> Section:
    history = model.history
    axes_size = (9.0, 4.4)
    last = {name: frame.iloc[-1, 0] for name, frame in history.items() if name in ("elbo_train", "flow_loss_train")}
    alt = "Losses by epoch; last values: " + ", ".join(f"{name} {value:.3g}" for name, value in last.items())

    def draw(ax: Axes) -> None:
        ax.set_axis_off()
        figure = ax.get_figure(root=True)
        assert figure is not None
        n_panels = len(curves(history))
        grid = figure.subplots(-(-n_panels // 3), min(3, n_panels), squeeze=False).ravel()
        for unused in grid[n_panels:]:
            unused.remove()
        pl.history(history, axes=list(grid[:n_panels]), show=False)

    image = figures.image(axes_size, alt, draw, "Losses of all stages. They should level off.")
    return Section("training", "Training", "Training", image=image)


def _latents(model: CFMVC, cells: AnnData, seed: int) -> Section:
    rows = np.sort(np.random.default_rng(seed).permutation(cells.n_obs)[:_MOST_CELLS])
    chosen = cells[rows].copy()
    latent = AnnData(obs=chosen.obs, obsm={"X_cfmvc": model.get_latent_representation(chosen)})
    sc.pp.neighbors(latent, use_rep="X_cfmvc", random_state=0)
    sc.tl.umap(latent, random_state=0)
    setup = model.registry["setup_args"]
    keys = [setup[name] for name in ("labels_key", "perturbation_key", "batch_key", "sample_key") if setup.get(name)]
    images = []
    for key in dict.fromkeys(keys):
        alt = f"UMAP of the intrinsic latent of {latent.n_obs:,} cells, coloured by {key}."

        def draw(ax: Axes, key: str = key) -> None:
            pl.latent(latent, key, axes=[ax], show=False)

        images.append(figures.image((4.6, 3.2), alt, draw, key))
    text = "Cell types should be apart, batches mixed, and conditions differ as far as they act."
    return Section("latents", "Latents", "Intrinsic latent", texts=[text], cards=[Card("By column of obs", "", images)])


def _accuracy(left_out: pd.DataFrame) -> Section:
    scores = _scores(left_out)
    cards = []
    for name, pairs in scores.head(_MOST_CARDS).groupby("perturbation", sort=False):
        cards.append(Card(str(name), "", [_left_out_image(left_out, str(name), str(c)) for c in pairs["context"]]))
    head = [tables.Cell("pair"), tables.Cell("correlation", numeric=True), tables.Cell("size", numeric=True)]
    rows = [
        [
            tables.Cell(f"{row.perturbation} in {row.context}"),
            tables.Cell(tables.number(row.correlation, 2), numeric=True),
            tables.Cell(tables.number(row.size, 2), numeric=True),
        ]
        for row in scores.itertuples()
    ]
    caption = "Size: that of the predicted effect over the measured one, which contains the noise of its cells."
    text = (
        "Each effect that was measured, predicted from the other contexts that saw the perturbation, as if it had not "
        "been. This checks means; whether cells are right, and whether simple baselines are better, needs a benchmark."
    )
    table = tables.Table(caption, head, rows) if rows else None
    return Section("accuracy", "Accuracy", "Effects left out", texts=[text], table=table, cards=cards)


def _left_out_image(left_out: pd.DataFrame, name: str, context: str) -> figures.Image:
    group = left_out[(left_out["perturbation"] == name) & (left_out["context"] == context)]
    effects = group["delta"].to_numpy(), group["measured"].to_numpy()
    genes = [figures.short(str(gene)) for gene in group["gene"]]
    alt = f"Predicted against measured effect of {name} in {context}, on {len(genes):,} genes."
    return figures.image((3.0, 3.0), alt, lambda ax: pl.delta(*effects, genes, 8, ax=ax, show=False), context)


def _effects(model: CFMVC, names: list[str]) -> Section:
    shown = names[:_MOST_CARDS]
    table = pd.concat([model.get_effect(name).assign(perturbation=name) for name in shown], ignore_index=True)
    n_rows = len(table[["perturbation", "context"]].drop_duplicates())
    alt = f"Heat map of the effects of {', '.join(shown)} on the 25 genes that change most."
    size = (9.0, 1.9 + 0.26 * n_rows)
    image = figures.image(size, alt, lambda ax: pl.effects(table, 25, ax=ax, show=False), "Genes that change most.")
    return Section("effects", "Effects", "Expected effects", image=image)


def _trust(trust: pd.DataFrame) -> Section:
    names = ("perturbation", "context", "trust", "expected error", "measured", "contexts that saw it")
    head = [tables.Cell(name, numeric=place in (2, 3, 5)) for place, name in enumerate(names)]
    rows = [
        [
            tables.Cell(row.perturbation),
            tables.Cell(row.context),
            tables.Cell(tables.number(row.trust, 2), note=row.word, numeric=True),
            tables.Cell(tables.number(row.expected_error, 2), numeric=True),
            tables.Cell("yes" if row.observed else "no"),
            tables.Cell(str(int(row.n_contexts)), numeric=True),
        ]
        for row in trust.itertuples()
    ]
    caption = "Trust: expected share of the squared effect that is right. Error: relative to the size of the effect."
    return Section("trust", "Trust", "How far to rely on it", table=tables.Table(caption, head, rows))


def _provenance(model: CFMVC) -> Section:
    setup = {name: value for name, value in model.registry["setup_args"].items() if value}
    facts = {
        "genes": f"{model.module.n_input:,}",
        "stages trained": ", ".join(model.trained_stages_),
        "columns": ", ".join(f"{name} {value}" for name, value in setup.items()),
        "versions": ", ".join(f"{name} {version(name)}" for name in ("cfmvc-scvi", "scvi-tools", "torch", "anndata")),
    }
    return Section("model", "Model", "The model", facts=facts)
