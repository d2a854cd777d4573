"""Questions of conditions: which it was, combinations, doses, and parts of an effect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from breadth_common import Table, distance, mean_log, trained
from scipy import sparse
from scipy.stats import spearmanr

from cfmvc_scvi import CFMVC, tl
from cfmvc_scvi.shift import fit_hill

__all__ = ["LEVELS", "combinations", "dose", "rank", "strength", "trajectory"]

DOSES, HELD_OUT_DOSE = (0.25, 0.5, 1.0, 2.0, 4.0), 1.0
LEVELS = {"stage": "representation", "max_epochs": 2}  # enough where only the mean effects are looked at


def rank(data: Path, seeds: int) -> Table:
    """Ask which knock-out made these cells, whose replicate training saw no knock-out of."""
    everything = ad.read_h5ad(data / "papalexi.h5ad")
    hidden = (everything.obs["batch"] == "rep_2") & (everything.obs["perturbation"] != "control")
    rows = []
    for seed in range(seeds):
        model = trained(everything[~hidden].copy(), {"labels_key": "batch"}, seed)
        control = everything[(everything.obs["batch"] == "rep_2") & ~hidden].copy()
        for name, number in everything.obs.loc[hidden, "perturbation"].value_counts().items():
            if number < 50:
                continue
            target = everything[hidden & (everything.obs["perturbation"] == name)].copy()
            table = tl.rank_perturbations(control, model, target, n_cells=250, n_resamples=50, seed=seed)
            order = table.loc[table["perturbation"] != "no change", "perturbation"].tolist()
            unchanged = table.set_index("perturbation").loc["no change"]
            told = bool(unchanged["low"] > table["energy"].min())
            closed = table.set_index("perturbation").loc[name, "closed"]
            rows.append((seed, name, int(number), order.index(name) + 1, len(order), unchanged["energy"], told, closed))
    columns = [
        "seed",
        "knock-out",
        "cells",
        "place",
        "candidates",
        "distance of control",
        "told from control",
        "closed",
    ]
    found = pd.DataFrame(rows, columns=columns)
    far = found["distance of control"] > strong(found)
    table = pd.DataFrame({"all": summary(found), "strong": summary(found[far])})
    text = (
        "Which of the knock-outs moves control cells of replicate 2 closest to these cells of replicate 2, of which "
        "training saw controls only? *Strong*: the third of knock-outs furthest from control."
    )
    return text, table.T, {"places": found.to_dict("records")}


def strong(found: pd.DataFrame) -> float:
    """Return the distance beyond which a third of the knock-outs are."""
    return float(found["distance of control"].quantile(2 / 3))


def summary(found: pd.DataFrame) -> pd.Series:
    """Return how often the true knock-out comes first, and where it stands on average."""
    n = found["candidates"].mean()
    return pd.Series(
        {
            "knock-outs": found["knock-out"].nunique(),
            "first": (found["place"] == 1).mean(),
            "in the first three": (found["place"] <= 3).mean(),
            "in the first three by chance": 3 / n,
            "mean place": found["place"].mean(),
            "mean place by chance": (n + 1) / 2,
            "closed": found["closed"].median(),
        }
    )


def combinations(data: Path, seeds: int) -> Table:
    """Predict the knock-down of targeted genes, alone in a hidden batch and in combinations never seen."""
    everything = ad.read_h5ad(data / "gasperini_small.h5ad")
    label = everything.obs["perturbation"].astype(str)
    combined, second = label.str.contains("+", regex=False), everything.obs["batch"] == "b2"
    train = everything[~combined & ~(second & (label != "control"))].copy()
    rows = []
    for seed in range(seeds):
        model = trained(train.copy(), {"labels_key": "batch"}, seed)
        control = everything[second & (label == "control")][:1500].copy()
        for kind, chosen in (("single", ~combined & second & (label != "control")), ("combination", combined & second)):
            for name in sorted(set(label[chosen])):
                targets = [part.split("_")[0] for part in name.split("+")]
                if not set(name.split("+")) <= set(model.vocabulary.perturbations) or not set(targets) <= set(
                    everything.var_names
                ):
                    continue
                real = everything[chosen & (label == name)]
                predicted = model.predict_counterfactual(control, perturbation=name, output="rate", seed=seed)
                rows += [
                    {"seed": seed, "kind": kind, "perturbation": name, "gene": gene, "cells": real.n_obs}
                    | {"real": share(real, gene), "predicted": share(predicted, gene), "control": share(control, gene)}
                    for gene in targets
                ]
    found = pd.DataFrame(rows)
    table = pd.DataFrame({kind: knock_down(part) for kind, part in found.groupby("kind")}).T
    text = (
        "Share of the counts left of the targeted genes (CRISPRi), in batch 2 whose perturbed cells training did not "
        "see; it saw no combination either. Pooled over perturbations, since a combination has a handful of cells."
    )
    return text, table, {"targets": rows}


def share(cells: ad.AnnData, gene: str) -> float:
    """Return the share of a gene in the counts of all cells."""
    return float(cells[:, gene].X.sum() / cells.X.sum())


def knock_down(found: pd.DataFrame) -> pd.Series:
    """Return how much is left of the targeted genes, real and predicted, and whether targets are told apart."""
    weight = found["cells"]
    left = {name: float(np.average(found[name], weights=weight)) for name in ("real", "predicted", "control")}
    per_gene = found.groupby("gene")[["real", "predicted", "control"]].mean()
    ratios = per_gene[["real", "predicted"]].div(per_gene["control"], axis=0)
    return pd.Series(
        {
            "perturbations": found["perturbation"].nunique(),
            "cells": found.drop_duplicates(["seed", "perturbation"])["cells"].sum() / found["seed"].nunique(),
            "left, real": left["real"] / left["control"],
            "left, predicted": left["predicted"] / left["control"],
            "rank correlation over genes": float(spearmanr(ratios["real"], ratios["predicted"]).statistic),
        }
    )


def hidden_types(data: Path, seeds: int) -> Iterator[tuple[int, str, str, CFMVC, ad.AnnData, ad.AnnData]]:
    """Hide the treated cells of each cell type in turn; seed, type, perturbation, model, control and hidden cells."""
    everything = ad.read_h5ad(data / "kang_small.h5ad")
    treated = everything.obs["perturbation"] != "control"
    name = str(everything.obs.loc[treated, "perturbation"].iloc[0])
    for seed in range(seeds):
        for kind in sorted(set(everything.obs["cell_type"])):
            own = everything.obs["cell_type"] == kind
            setup = {"labels_key": "cell_type", "batch_key": "batch"}
            model = trained(everything[~(own & treated)].copy(), setup, seed)
            yield seed, kind, name, model, everything[own & ~treated].copy(), everything[own & treated]


def strength(data: Path, seeds: int) -> Table:
    """Go from the control cells of a hidden cell type part of the way, all of it and beyond."""
    rows = []
    for seed, kind, name, model, control, real in hidden_types(data, seeds):
        for part in (0.0, 0.25, 0.5, 0.75, 1.0, 1.25):
            moved = model.predict_counterfactual(control, perturbation=name, strength=part, seed=seed)
            energy = distance(moved, real, control, seed)
            rows.append({"seed": seed, "cell type": kind, "strength": part, "energy": energy})
    found = pd.DataFrame(rows)
    table = found.pivot_table(index="cell type", columns="strength", values="energy")
    return (
        "Energy distance to the treated cells of a cell type that training did not see treated (0: their like, 1: the "
        "control cells), by `strength`.",
        table,
        {"energies": rows},
    )


def trajectory(data: Path, seeds: int) -> Table:
    """Follow the control cells of a hidden cell type on their way, and look at the genes that change most."""
    rows = []
    for seed, kind, name, model, control, real in hidden_types(data, seeds):
        path = tl.counterfactual_trajectory(control, model, name, times=6, seed=seed)
        change = mean_log(real) - mean_log(control)
        largest = np.argsort(-np.abs(change))[:20]
        levels = np.stack([mean_log(path[path.obs["t"] == t]) for t in path.obs["t"].unique()])[:, largest]
        steps = np.diff(levels, axis=0) * np.sign(change[largest])
        away = [distance(path[path.obs["t"] == t], real, control, seed) for t in path.obs["t"].unique()]
        row = {"seed": seed, "cell type": kind, "genes on their way": (steps > 0).mean()}
        rows.append({**row, "steps nearer": (np.diff(away) < 0).mean(), "start": away[0], "end": away[-1]})
    found = pd.DataFrame(rows)
    table = found.drop(columns="seed").groupby("cell type").mean()
    return (
        "The way of control cells of a cell type that training did not see treated, in five steps: share of steps in "
        "which the twenty genes of largest real change move the right way, share of steps that bring the cells "
        "nearer to the treated ones, and the energy distance at both ends.",
        table,
        {"ways": rows},
    )


def dose(data: Path, seeds: int) -> Table:
    """Predict a dose that was held out, of cells whose doses were made by mixing treated and control cells.

    A cell of dose d has the share d / (1 + d) of the counts of a treated cell, drawn at random, and the rest of a
    control cell of its type.
    """
    everything = ad.read_h5ad(data / "kang_small.h5ad")
    rows = []
    for seed in range(seeds):
        mixed, levels = mixtures(everything, np.random.default_rng(seed))
        model = trained(mixed[mixed.obs["dose"] != HELD_OUT_DOSE].copy(), DOSED, seed, training=LEVELS)
        tl.dose_response(mixed, model, "drug")
        halves = mixed.uns["dose_response"]["ec50"].set_index(["context", "gene"])
        for kind, truth in levels.items():
            effects = {}
            for at in DOSES:
                table = model.get_effect("drug", dose=at).set_index(["context", "gene"])["delta"]
                effects[at] = table.loc[kind].loc[everything.var_names].to_numpy()
            aim = truth[DOSES.index(HELD_OUT_DOSE)]
            together, genes = halves.loc[(kind, "all genes")], halves.loc[kind].index.drop("all genes")
            curves = truth[:, everything.var_names.get_indexer(genes)]
            curve = fit_hill(DOSES, curves, np.full(curves.shape, 0.02), shared=True).half_dose[0]
            rows.append(
                {
                    "seed": seed,
                    "cell type": kind,
                    "correlation": np.corrcoef(effects[HELD_OUT_DOSE], aim)[0, 1],
                    "error": relative(effects[HELD_OUT_DOSE], aim),
                    "error of the dose below": relative(effects[0.5], aim),
                    "error of the dose above": relative(effects[2.0], aim),
                    "half dose, found over planted": together["ec50"] / curve,
                    "interval holds it": float(together["low"] <= curve <= together["high"]),
                }
            )
    found = pd.DataFrame(rows)
    return (
        f"Effect at dose {HELD_OUT_DOSE}, which training did not see, of cells with the share d / (1 + d) of the "
        "counts of an interferon-treated cell and the rest of a control cell; errors are relative to the length of the "
        "true effect. "
        "Planted half doses are of the same kind of curve through the true means.",
        found.drop(columns="seed").groupby("cell type").mean(),
        {"doses": rows},
    )


DOSED = {"labels_key": "cell_type", "dose_key": "dose"}


def mixtures(everything: ad.AnnData, rng: np.random.Generator) -> tuple[ad.AnnData, dict[str, np.ndarray]]:
    """Return control cells and mixed ones, of a random dose for each treated cell, and true effects by cell type."""
    control = (everything.obs["perturbation"] == "control").to_numpy()
    kinds, counts = everything.obs["cell_type"].astype(str).to_numpy(), everything.X.toarray().astype(int)
    mixed, dose, levels = counts.copy(), np.zeros(len(counts)), {}
    for kind in sorted(set(kinds)):
        own, treated = np.flatnonzero(control & (kinds == kind)), np.flatnonzero(~control & (kinds == kind))
        dose[treated] = rng.choice(DOSES, len(treated))
        mixed[treated] = mix(counts[treated], counts[rng.choice(own, len(treated))], dose[treated], rng)
        again = np.tile(treated, 10)
        curves = [mix(counts[again], counts[rng.choice(own, len(again))], np.full(len(again), d), rng) for d in DOSES]
        base = mean_log(everything[own])
        levels[kind] = np.stack([mean_log(ad.AnnData(sparse.csr_matrix(each))) - base for each in curves])
    result = ad.AnnData(
        sparse.csr_matrix(mixed.astype(np.float32)), obs=everything.obs.copy(), var=everything.var.copy()
    )
    result.obs["perturbation"], result.obs["dose"] = np.where(control, "control", "drug"), dose
    return result, levels


def mix(treated: np.ndarray, control: np.ndarray, dose: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return counts of which a random share d / (1 + d) is of treated cells."""
    share = (dose / (1 + dose))[:, None]
    return rng.binomial(treated, share) + rng.binomial(control, 1 - share)


def relative(found: np.ndarray, truth: np.ndarray) -> float:
    """Return the length of an error relative to that of the truth."""
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))
