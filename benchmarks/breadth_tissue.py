"""Questions of space, on slices of brain."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from breadth_common import Table, trained
from scipy import sparse
from scipy.optimize import curve_fit
from scipy.spatial import cKDTree

from cfmvc_scvi import tl

__all__ = ["niche", "tissue"]

NICHES = ("neighbours", "messages", "coordinates")
GAIN, FOLD, N_GENES = 0.9, 3.0, 20  # of what is planted


def niche(data: Path, seeds: int) -> Table:
    """Compare the held-out loss of the flow with coordinates, without, and with coordinates that were shuffled.

    The slices hold no perturbation. So half of the cells, drawn at random, are called perturbed, and the flow from
    noise learns the cells of a type as they are: what the neighbours tell of a cell lowers its loss.
    """
    rows = []
    for file in ("spatial_merfish", "spatial_osmfish"):
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            cells = slice_of(data, file)
            cells.obs["perturbation"] = rng.choice(["control", "placebo"], cells.n_obs)
            place = cells.obsm["spatial"]
            losses, latents = {}, []
            shuffled = rng.permutation(place)
            for name, spatial in {**dict.fromkeys(NICHES, place), "without": None, "shuffled": shuffled}.items():
                asked = cells.copy()
                if spatial is not None:
                    asked.obsm["spatial"] = spatial
                setup = {"labels_key": "cell_type", **({} if spatial is None else {"spatial_key": "spatial"})}
                training = {"train_size": 0.8, "check_val_every_n_epoch": 1}
                kind = name if name in NICHES else NICHES[0]
                model = trained(asked, setup, seed, training=training, source="noise", niche=kind)
                losses[name] = float(model.history["flow_loss_validation"].dropna().to_numpy().ravel()[-1])
                latents.append(model.get_latent_representation())
            if not all(np.array_equal(latents[0], other) for other in latents[1:]):
                raise RuntimeError("the latents of the models differ, so their losses cannot be compared")
            rows.append({"slice": file, "seed": seed, **losses})
    found = pd.DataFrame(rows)
    table = found.groupby("slice")[[*NICHES, "without", "shuffled"]].mean()
    for other in ("without", "shuffled"):
        lower = found.assign(lower=found[NICHES[0]] < found[other]).groupby("slice")["lower"]
        table[f"neighbours below {other}, share of seeds"] = lower.mean()
    return (
        "Loss of the flow on cells held out of its training (of one seed the same cells and the same latents), by what "
        "it knows of the place of a cell (`niche` of the model), without coordinates, and with the neighbours by "
        "coordinates that were shuffled among the cells. The slices hold no perturbation: half of the cells, drawn at "
        "random, are called perturbed.",
        table,
        {"losses": rows},
    )


def tissue(data: Path, seeds: int) -> Table:
    """Ask for the spread of a response that was planted into one half of a real slice, in the other half; or of none.

    *Planted*: twenty genes of cells in two discs, and of cells around as far as they follow, are changed threefold.
    *Placebo, discs* and *placebo, scattered*: cells are called perturbed, and nothing is changed.
    """
    rows = []
    for seed in range(seeds):
        cells = slice_of(data, "spatial_merfish")
        rng = np.random.default_rng(seed)
        for kind in ("planted", "placebo, discs", "placebo, scattered"):
            asked, radius = with_region(cells, kind, rng)
            setup = {"labels_key": "cell_type", "batch_key": "half", "spatial_key": "spatial"}
            model = trained(asked, setup, seed)
            right = asked[asked.obs["half"] == "right"].copy()
            middle = np.median(right.obsm["spatial"], axis=0)
            region = np.linalg.norm(right.obsm["spatial"] - middle, axis=1) < 2 * radius
            tl.virtual_tissue(right, model, "P", region, seed=seed)
            response = model.get_niche_response("P")
            row = {"kind": kind, "seed": seed, "found": response.found, "chance explains as much": response.p_value}
            if kind == "planted" and response.found:
                truth = followed(right.obsm["spatial"], region, radius)[~region]
                far = right.obs["virtual_tissue_distance"].to_numpy()[~region]
                moved = right.obs["virtual_tissue"].to_numpy()[~region]
                planted = decay_length(far, truth)
                row |= {
                    "decay length, found over planted": right.uns["virtual_tissue"]["decay_length"] / planted,
                    "correlation of responses": np.corrcoef(moved, truth)[0, 1],
                }
            rows.append(row)
    found = pd.DataFrame(rows)
    table = found.drop(columns="seed").groupby("kind").mean()
    return (
        f"A response planted into the left half of the MERFISH slice ({N_GENES} genes, threefold in two discs, and "
        f"{GAIN} of the mean of the surroundings in cells around), asked for around a region of the right half; and "
        "cells called perturbed without any change, in the same discs or scattered at random. *Found*: share of seeds; "
        "*chance*: share of places elsewhere in which the pattern of perturbed cells explains as much. Decay "
        "length and correlation are means over seeds where something is found.",
        table,
        {"tissues": rows},
    )


def slice_of(data: Path, file: str) -> ad.AnnData:
    """Return the cells of types that have thirty and more, with two coordinates."""
    cells = ad.read_h5ad(data / f"{file}.h5ad")
    known = cells.obs.groupby("cell_type", observed=True)["batch"].transform("size") >= 30
    cells = cells[known.to_numpy()].copy()
    cells.obsm["spatial"] = np.asarray(cells.obsm["spatial"], dtype=float)[:, :2]
    return cells


def with_region(cells: ad.AnnData, kind: str, rng: np.random.Generator) -> tuple[ad.AnnData, float]:
    """Call cells of the left half perturbed, change counts if so planted; also return the radius of surroundings."""
    result, place = cells.copy(), cells.obsm["spatial"]
    left = place[:, 0] < np.median(place[:, 0])
    radius = float(np.median(cKDTree(place).query(place, 15)[0][:, -1]))
    low, high = place[left].min(axis=0), place[left].max(axis=0)
    centres = low + (high - low) * np.array([[0.35, 0.3], [0.65, 0.7]])
    held = left & (np.linalg.norm(place[:, None] - centres, axis=2) < 2.5 * radius).any(axis=1)
    if kind == "placebo, scattered":
        held = left & (rng.permutation(len(place)) < held.sum() / left.mean())
    if kind == "planted":
        field = np.where(left, followed(place, held, radius), 0.0)
        counts = result.X.toarray()
        genes = rng.choice(np.argsort(-counts.mean(axis=0))[:60], N_GENES, replace=False)
        for number, gene in enumerate(genes):
            before = counts[:, gene].astype(int)
            factor = FOLD ** (field if number % 2 else -field)
            kept = rng.binomial(before, np.minimum(factor, 1.0))
            counts[:, gene] = kept + rng.poisson(np.maximum(factor - 1, 0) * before)
        result.X = sparse.csr_matrix(counts.astype(np.float32))
    result.obs["perturbation"] = np.where(held, "P", "control")
    result.obs["half"] = np.where(left, "left", "right")
    return result, radius


def followed(place: np.ndarray, held: np.ndarray, radius: float) -> np.ndarray:
    """Return how far each cell follows: a part of the mean of all cells within a radius, 1 in the region."""
    near = cKDTree(place).sparse_distance_matrix(cKDTree(place), radius, output_type="coo_matrix").tocsr()
    near.data[:] = 1.0
    near = near + sparse.identity(len(place))
    near = sparse.diags(1 / np.asarray(near.sum(axis=1)).ravel()) @ near
    field = held.astype(float)
    for _ in range(200):
        field = np.where(held, 1.0, GAIN * (near @ field))
    return field


def decay_length(far: np.ndarray, values: np.ndarray) -> float:
    """Return l of the curve a exp(-distance / l)."""
    start, bounds = (values.max(), float(np.median(far))), (0, [np.inf, 50 * float(far.max())])
    return float(curve_fit(lambda x, a, l: a * np.exp(-x / l), far, values, start, bounds=bounds)[0][1])
