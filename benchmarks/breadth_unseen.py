"""Perturbations that no cell had: real knock-outs, and simulated ones of which the truth is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from breadth_common import Table, mean_log, trained
from breadth_conditions import LEVELS
from scipy import sparse

from cfmvc_scvi import pp

__all__ = ["unseen"]

INTERFERON_GAMMA = ("IFNGR1", "IFNGR2", "IRF1", "STAT1")  # targets of one pathway, as textbooks have it
N_PERTURBATIONS, N_UNSEEN, N_GENES, N_CELLS = 24, 6, 300, 60  # simulated
FEW = 6  # of these are strong, a third of the unseen ones among them


def unseen(data: Path, seeds: int) -> Table:
    """Predict perturbations that no cell had, real ones within each replicate, with features of several kinds."""
    rows = [*knock_outs(data, seeds), *simulated(seeds)]
    found = pd.DataFrame(rows)
    keys, columns = ["data", "features"], ["model", "mean of the others"]
    parts = {
        "all": found,
        "strong": found[found["strong"]],
        "interferon-gamma": found[found["perturbation"].isin(INTERFERON_GAMMA)],
    }
    table = pd.concat({part: rows_of.groupby(keys)[columns].mean() for part, rows_of in parts.items()}, axis=1)
    table.columns = [f"{score}, {part}" for part, score in table.columns]
    table.index = [f"{name}, {features}" for name, features in table.index]
    return (
        "Correlation over genes of predicted and real change of mean log1p CP10k of perturbations that no training "
        "cell had. *papalexi*: knock-outs, six groups left out in turn, each replicate against its own controls; "
        f"*interferon-gamma*: {', '.join(INTERFERON_GAMMA)}, which the one feature of *pathway* marks. *simulated*: "
        f"six of {N_PERTURBATIONS} left out, six screens a seed, of which the true change is known: *graded*, each is "
        f"a mixture of three pathways, named by the features of *pathway*; *few*, {FEW} change a pathway strongly and "
        "the others next to nothing; *two kinds*, half of these change another pathway. All have a change in common. "
        "*Strong*: the third of largest change.",
        table,
        {"perturbations": rows},
    )


def knock_outs(data: Path, seeds: int) -> Iterator[dict[str, object]]:
    """Scores of knock-outs of papalexi."""
    everything = ad.read_h5ad(data / "papalexi.h5ad")
    label, replicates = everything.obs["perturbation"].astype(str), sorted(set(everything.obs["batch"]))
    names = np.array([name for name, number in label.value_counts().items() if name != "control" and number >= 100])
    real = {(name, rep): change(everything, label, name, rep) for name in names for rep in replicates}
    size = {name: np.mean([np.linalg.norm(real[name, rep]) for rep in replicates]) for name in names}
    strong = {name for name in names if size[name] >= np.quantile(list(size.values()), 2 / 3)}
    for seed in range(seeds):
        for held_out in np.array_split(np.random.default_rng(seed).permutation(names), 6):
            train = everything[~label.isin(held_out)].copy()
            others = {rep: np.mean([real[o, rep] for o in names if o not in held_out], axis=0) for rep in replicates}
            aims = {key: effect for key, effect in real.items() if key[0] in held_out}
            for kind, features in features_of(train, names).items():
                for row in scored(train, "batch", features, aims, others, seed):
                    strongly = {"strong": row["perturbation"] in strong}
                    yield {"data": "papalexi", "seed": seed, "features": kind, **strongly, **row}


def simulated(seeds: int) -> Iterator[dict[str, object]]:
    """Scores of simulated perturbations."""
    names = np.array([f"P{number}" for number in range(N_PERTURBATIONS)])
    for number in range(6 * seeds):
        for name in ("graded", "few", "two kinds"):
            cells, strengths, effects = screen(name, np.random.default_rng(number))
            train = cells[~cells.obs["perturbation"].isin(names[:N_UNSEEN])].copy()
            measured = [change(train, train.obs["perturbation"], seen, "all") for seen in names[N_UNSEEN:]]
            noise = np.random.default_rng([number, 1]).standard_normal(strengths.shape)
            tables = {"noise": noise, **({"pathway": strengths} if name == "graded" else {})}
            size = np.linalg.norm(effects[:N_UNSEEN], axis=1)
            strong = dict(zip(names, size >= np.quantile(size, 2 / 3), strict=False))
            aims = {(unseen, "all"): effect for unseen, effect in zip(names[:N_UNSEEN], effects, strict=False)}
            for kind, values in tables.items():
                features, others = pd.DataFrame(values, index=names), {"all": np.mean(measured, axis=0)}
                for row in scored(train, "batch", features, aims, others, number):
                    strongly = {"strong": strong[row["perturbation"]]}
                    yield {"data": f"simulated, {name}", "seed": number, "features": kind, **strongly, **row}


def screen(kind: str, rng: np.random.Generator) -> tuple[ad.AnnData, np.ndarray, np.ndarray]:
    """Return cells, how far each perturbation changes each pathway, and true changes (perturbations, genes)."""
    strength = rng.normal(size=(N_PERTURBATIONS, 3))
    if kind != "graded":
        strength = np.zeros((N_PERTURBATIONS, 2))
        number = np.r_[:2, N_UNSEEN : N_UNSEEN + FEW - 2]
        strength[number, np.arange(FEW) % 2 if kind == "two kinds" else 0] = rng.uniform(0.7, 1.5, FEW)
    pathways = rng.normal(0, 0.6, (strength.shape[1], N_GENES)) * (rng.random((strength.shape[1], N_GENES)) < 0.3)
    common = rng.normal(0, 0.3, N_GENES) * (rng.random(N_GENES) < 0.3)
    base = rng.gamma(1.0, 1.0, N_GENES) + 0.05
    level = base * np.exp(np.vstack([np.zeros(N_GENES), strength @ pathways + common]))
    level /= level.sum(axis=1, keepdims=True)
    true = np.stack([mean_log(drawn(each, 2000, rng)) for each in level])
    cells = ad.concat([drawn(each, N_CELLS if number else 8 * N_CELLS, rng) for number, each in enumerate(level)])
    numbers = np.repeat(np.arange(N_PERTURBATIONS + 1), [8 * N_CELLS, *[N_CELLS] * N_PERTURBATIONS])
    cells.obs["perturbation"] = np.where(numbers > 0, [f"P{number - 1}" for number in numbers], "control")
    cells.obs["batch"], cells.obs_names = "all", [f"cell_{number}" for number in range(cells.n_obs)]
    return cells, strength, true[1:] - true[0]


def drawn(share: np.ndarray, n_cells: int, rng: np.random.Generator) -> ad.AnnData:
    """Return negative binomial counts of cells with these shares of the genes."""
    depth = rng.lognormal(np.log(1500), 0.3, (n_cells, 1))
    return ad.AnnData(sparse.csr_matrix(rng.poisson(rng.gamma(5.0, share * depth / 5.0)).astype(np.float32)))


def scored(
    train: ad.AnnData,
    context: str,
    features: pd.DataFrame,
    aims: dict[tuple[str, str], np.ndarray],
    others: dict[str, np.ndarray],
    seed: int,
) -> Iterator[dict[str, object]]:
    """Correlations with the true changes by perturbation and context, of a model and of the mean of the others."""
    cells = train.copy()
    cells.uns["features"] = features
    model = trained(cells, {"labels_key": context, "perturbation_embeddings_key": "features"}, seed, training=LEVELS)
    for (name, place), aim in aims.items():
        effect = model.get_effect(name).set_index(["context", "gene"])["delta"].loc[place].loc[train.var_names]
        scores = [float(np.corrcoef(found, aim)[0, 1]) for found in (effect.to_numpy(), others[place])]
        yield {"perturbation": name, "context": place, "model": scores[0], "mean of the others": scores[1]}


def change(cells: ad.AnnData, label: pd.Series, name: str, rep: str) -> np.ndarray:
    """Return the change of mean log1p CP10k in a replicate."""
    mine = (cells.obs["batch"] == rep).to_numpy()
    return mean_log(cells[mine & (label == name).to_numpy()]) - mean_log(cells[mine & (label == "control").to_numpy()])


def names_in(train: ad.AnnData, names: np.ndarray) -> np.ndarray:
    """Return which of the perturbations training has cells of."""
    return np.isin(names, train.obs["perturbation"].astype(str).unique())


def features_of(train: ad.AnnData, names: np.ndarray) -> dict[str, pd.DataFrame]:
    """Return tables of features of knock-outs, those without cells among them."""
    noise = pd.DataFrame(np.random.default_rng(0).standard_normal((len(names), 5)), index=names).add_prefix("noise_")
    unknown = noise.copy()
    unknown.loc[~names_in(train, names)] = np.nan
    marked = pd.DataFrame({"pathway": np.isin(names, INTERFERON_GAMMA).astype(float)}, index=names)
    coexpression = pp.gene_embeddings(train, list(names), context_key="batch")
    return {"none": unknown, "co-expression": coexpression, "pathway": marked, "noise": noise}
