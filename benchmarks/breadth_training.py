"""Questions of training: donors that it did not see, and options that are off by default."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from breadth_common import QUIET, Table, distance, mean_log, trained

from cfmvc_scvi import CFMVC, tl
from cfmvc_scvi.config import SimulationConfig
from cfmvc_scvi.datasets import simulated_perturbation, true_counterfactual
from cfmvc_scvi.metrics import cell_effect_correlation, energy_distance

__all__ = ["donors", "invariance", "matching"]

WEIGHTS = (0.0, 1.0, 10.0)  # of the distribution matching
LEAST = 20  # treated and control cells of a group that is looked at
COLUMNS = {"labels_key": "cell_type", "batch_key": "batch"}


def donors(data: Path, seeds: int) -> Table:
    """Map a donor of whom training saw no cell, by control cells alone, and predict its treated cells."""
    everything = known_donors(data)
    treated = (everything.obs["perturbation"] != "control").to_numpy()
    name = str(everything.obs.loc[treated, "perturbation"].iloc[0])
    rows = []
    donor_of, kind_of = (everything.obs[key].astype(str).to_numpy() for key in ("batch", "cell_type"))
    groups = [
        (donor, kind)
        for donor in sorted(set(donor_of))
        for kind in sorted(set(kind_of))
        if min(np.bincount(treated[(donor_of == donor) & (kind_of == kind)], minlength=2)) >= LEAST
    ]
    for seed in range(seeds):
        for donor in sorted({donor for donor, _ in groups}):
            own = donor_of == donor
            reference = trained(everything[~own].copy(), COLUMNS, seed)
            query = everything[own & ~treated].copy()
            model = CFMVC.load_query_data(query, reference, accelerator="cpu")
            model.train(**QUIET, plan_kwargs={"weight_decay": 0.0})
            for kind in [kind for other, kind in groups if other == donor]:
                mine = kind_of == kind
                control, real = query[query.obs["cell_type"] == kind].copy(), everything[own & treated & mine]
                found = model.predict_counterfactual(control, perturbation=name, seed=seed)
                others = everything[~own & treated & mine]
                shift = mean_log(others) - mean_log(everything[~own & ~treated & mine])
                truth = mean_log(real) - mean_log(control)
                rows.append(
                    {
                        "seed": seed,
                        "donor": donor,
                        "cell type": kind,
                        "energy": distance(found, real, control, seed),
                        "energy of others' treated cells": distance(others, real, control, seed),
                        "Pearson": np.corrcoef(mean_log(found) - mean_log(control), truth)[0, 1],
                        "Pearson of others' shift": np.corrcoef(shift, truth)[0, 1],
                    }
                )
    found = pd.DataFrame(rows)
    table = found.drop(columns=["seed", "cell type"]).groupby("donor").mean()
    table.insert(0, "groups", found.groupby("donor")["cell type"].nunique())
    return (
        "Treated cells of a donor of whom training saw no cell: the donor's control cells are mapped onto the trained "
        "model (`load_query_data`), and predicted; means over cell types with twenty cells of both kinds. Beside it, "
        "the treated cells of the other donors themselves, and their mean shift.",
        table,
        {"groups": rows},
    )


def known_donors(data: Path) -> ad.AnnData:
    """Return the cells whose cell type was annotated, and not transferred by a classifier."""
    cells = ad.read_h5ad(data / "kang.h5ad")
    return cells[(cells.obs["batch"] != "donor_unknown").to_numpy()].copy()


def matching(data: Path, seeds: int) -> Table:
    """Train the flow with and without the distribution matching, and look at groups that were held out."""
    rows = []
    for seed in range(seeds):
        for weight in WEIGHTS:
            rows += [
                {"data": "kang_small", "weight": weight, "seed": seed, **row}
                for row in matched_kang(data, weight, seed)
            ]
            rows.append({"data": "simulated", "weight": weight, "seed": seed, **matched_simulation(weight, seed)})
    found = pd.DataFrame(rows)
    table = found.drop(columns="seed").groupby(["data", "weight"]).mean()
    table.index = [f"{name}, {weight:g}" for name, weight in table.index]
    return (
        "Groups that were held out (each cell type of kang_small; one condition of one of four simulated types), by "
        "the weight `lambda_mmd`: energy distance of predicted counts, energy distance of the latents that the flow "
        "moved to those of the real cells as a share of that of the control cells, and in the simulation the "
        "correlation of single cells' effects.",
        table,
        {"matching": rows},
    )


def scores(model: CFMVC, control: ad.AnnData, real: ad.AnnData, name: str, seed: int) -> dict[str, float]:
    """Return distances of counts and of latents."""
    found = model.predict_counterfactual(control, perturbation=name, seed=seed)
    moved, start = found.obsm["X_cfmvc_counterfactual"], found.obsm["X_cfmvc"]
    aim = model.get_latent_representation(real.copy())
    latent = energy_distance(moved, aim) / energy_distance(start, aim)
    return {"energy, counts": distance(found, real, control, seed), "energy, latents": float(latent)}


def matched_kang(data: Path, weight: float, seed: int) -> list[dict[str, float]]:
    """Return the scores of each cell type, left out in turn."""
    everything = ad.read_h5ad(data / "kang_small.h5ad")
    treated = (everything.obs["perturbation"] != "control").to_numpy()
    name, rows = str(everything.obs.loc[treated, "perturbation"].iloc[0]), []
    for kind in sorted(set(everything.obs["cell_type"])):
        own = (everything.obs["cell_type"] == kind).to_numpy()
        training = {"flow_plan_kwargs": {"lambda_mmd": weight}}
        model = trained(everything[~(own & treated)].copy(), COLUMNS, seed, training=training)
        rows.append(scores(model, everything[own & ~treated].copy(), everything[own & treated], name, seed))
    return rows


def matched_simulation(weight: float, seed: int) -> dict[str, float]:
    """Return the scores of the held-out condition, of cells of which training saw half."""
    cells = simulated_perturbation(4000, 300, perturbations=("A", "B"), combinations=False, seed=seed)
    own = ((cells.obs["cell_type"] == "type_0") & (cells.obs["perturbation"] == "A")).to_numpy()
    seen = np.random.default_rng(seed).random(cells.n_obs) < 0.5
    training = {"flow_plan_kwargs": {"lambda_mmd": weight}}
    model = trained(cells[seen & ~own].copy(), COLUMNS, seed, training=training)
    control = cells[seen & (cells.obs["cell_type"] == "type_0") & (cells.obs["perturbation"] == "control")].copy()
    after, before = (
        np.log1p(model.predict_counterfactual(control, perturbation=name, output="normalized", seed=seed).X)
        for name in ("A", "control")
    )
    truth = np.log1p(true_counterfactual(control, "A")) - np.log1p(true_counterfactual(control, "control"))
    row = scores(model, control, cells[own], "A", seed)
    return row | {"correlation of single cells": cell_effect_correlation(after - before, truth)}


def invariance(data: Path, seeds: int) -> Table:
    """Train with and without the terms that keep the latents apart, and look at what they know and at predictions."""
    rows = []
    for seed in range(seeds):
        for weight in (0.0, 100.0):
            everything = known_donors(data)
            treated = (everything.obs["perturbation"] != "control").to_numpy()
            own = (everything.obs["cell_type"] == "B cells").to_numpy()
            if not own.any():
                raise RuntimeError("kang.h5ad has no B cells")
            simulation = SimulationConfig(batch_sd=0.6)
            simulated = simulated_perturbation(3000, 300, perturbations=("A", "B"), seed=seed, config=simulation)
            hidden = ((simulated.obs["cell_type"] == "type_0") & (simulated.obs["perturbation"] == "A")).to_numpy()
            name = str(everything.obs.loc[treated, "perturbation"].iloc[0])
            for file, cells, left_out, condition in (
                ("kang", everything, own & treated, name),
                ("simulated", simulated, hidden, "A"),
            ):
                training = {"plan_kwargs": {"lambda_batch": weight}}
                train = cells[~left_out].copy()
                model = trained(train, COLUMNS, seed, training=training)
                known = tl.disentanglement(train, model, seed=seed).set_index(["latent", "factor"])
                kind = cells.obs.loc[left_out, "cell_type"].iloc[0]
                control = train[(train.obs["cell_type"] == kind) & (train.obs["perturbation"] == "control")].copy()
                batch, condition_row = (known.loc[("intrinsic", factor)] for factor in ("batch", "perturbation"))
                rows.append(
                    {
                        "data": file,
                        "lambda_batch": weight,
                        "seed": seed,
                        "AUC of batch": batch["auc"],
                        "HSIC of batch": batch["hsic"],
                        "AUC of perturbation": condition_row["auc"],
                        **scores(model, control, cells[left_out], condition, seed),
                    }
                )
    found = pd.DataFrame(rows)
    table = found.drop(columns="seed").groupby(["data", "lambda_batch"]).mean()
    table.index = [f"{name}, {weight:g}" for name, weight in table.index]
    return (
        "What the intrinsic latent knows of the batch (in kang: of the donor) and of the perturbation, by the weight "
        "`lambda_batch`, and the prediction of a group that was left out (treated B cells; one condition of one "
        "simulated type).",
        table,
        {"invariance": rows},
    )
