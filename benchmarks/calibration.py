"""Coverage of calibrated intervals, and trust against error, over held-out (condition, context) pairs.

Pseudo-bulks only, no network. The calibration never sees the pair that is held out.

python benchmarks/calibration.py kang.h5ad --context cell_type --drop batch=donor_unknown
python benchmarks/calibration.py simulated
"""

from __future__ import annotations

import argparse

import anndata as ad
import numpy as np
import pandas as pd
from scipy.stats import norm, spearmanr

from cfmvc_scvi.config import CalibrationConfig, EffectConfig
from cfmvc_scvi.datasets import simulated_perturbation
from cfmvc_scvi.shift import LeftOut, PseudoBulk, calibrate, effect_goal, leave_one_out, pseudo_bulk

LEVEL = 0.9


def bulks(adata: ad.AnnData, context_key: str, least: int) -> tuple[list[str], PseudoBulk, dict[str, PseudoBulk]]:
    """Contexts with control cells, their control pseudo-bulk, and that of each condition; small groups are empty."""
    condition, context = (adata.obs[key].astype(str).to_numpy() for key in ("perturbation", context_key))
    size = pd.crosstab(context, condition)
    contexts = list(size.index[size["control"] >= least])
    code = pd.Index(contexts).get_indexer(context)
    found = {}
    for name in size.columns:
        large = np.isin(context, size.index[size[name] >= least])
        cells = np.flatnonzero((condition == name) & (code >= 0) & large)
        if len(cells):
            found[name] = pseudo_bulk(adata.X[cells], code[cells], len(contexts))
    return contexts, found.pop("control"), found


def without(bulk: PseudoBulk, context: int) -> PseudoBulk:
    """The pseudo-bulk with an empty group in place of a context."""
    rows = np.arange(bulk.n_groups)
    rows[context] = bulk.n_groups
    empty = pseudo_bulk(np.zeros((0, bulk.n_genes)), np.empty(0, dtype=int), 1)
    return PseudoBulk.concatenate([bulk, empty]).take(rows)


def score(control: PseudoBulk, truth: PseudoBulk, context: int, left_out: list[LeftOut]) -> dict[str, float]:
    """Coverage, width, trust and relative error of one held-out pair."""
    calibration = calibrate(left_out, CalibrationConfig())
    goal = effect_goal(control, without(truth, context), EffectConfig())
    delta, true = (profile[context] - control.log_mean[context] for profile in (goal.goal, truth.log_mean))
    sd, error = goal.sd[context], np.abs(delta - true)
    total = np.sqrt(sd**2 + control.log_noise[context] + truth.log_noise[context])
    half = calibration.quantile(LEVEL, sd) * total
    top = np.argsort(-control.log_mean[context])[: len(sd) // 10]
    signal = (delta**2).sum()
    return {
        "n_cells": float(truth.n_cells[context]),
        "coverage": float((error <= half).mean()),
        "coverage_top_tenth": float((error <= half)[top].mean()),
        "coverage_normal": float((error <= norm.ppf(0.5 + LEVEL / 2) * total).mean()),
        "width": float(2 * half.mean()),
        "inflation": calibration.inflation,
        "trust": float(signal / (signal + calibration.inflation**2 * (sd**2).sum())),
        "relative_error": float(np.linalg.norm(delta - true) / np.linalg.norm(true)),
        "contexts_left_out": float(calibration.n_contexts),
    }


def table(adata: ad.AnnData, context_key: str, least: int) -> pd.DataFrame:
    """One row per held-out pair whose condition was observed elsewhere."""
    contexts, control, conditions = bulks(adata, context_key, least)
    several = conditions if len(conditions) > 1 else {}
    everywhere = {name: leave_one_out(control, bulk, EffectConfig()) for name, bulk in several.items()}
    rows = []
    for name, bulk in conditions.items():
        others = [one for other, found in everywhere.items() if other != name for one in found]
        seen = np.flatnonzero(bulk.n_cells > 0)
        for context in seen if len(seen) > 1 else ():
            own = leave_one_out(control, without(bulk, context), EffectConfig())
            fold = {"condition": name, "context": contexts[context]}
            rows.append(fold | score(control, bulk, context, others + own))
    return pd.DataFrame(rows)


def main() -> None:
    """Print the table and its summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="h5ad with counts and obs['perturbation'], or 'simulated'")
    parser.add_argument("--context", default="cell_type")
    parser.add_argument("--drop", help="COLUMN=VALUE of cells to leave out")
    parser.add_argument("--least", type=int, default=10, help="cells of a group that counts as measured")
    args = parser.parse_args()
    if args.data == "simulated":
        options = {"n_cell_types": 6, "perturbations": ("A", "B", "C", "D"), "combinations": False}
        adata = simulated_perturbation(6000, **options)
    else:
        adata = ad.read_h5ad(args.data)
    if args.drop:
        column, value = args.drop.split("=", 1)
        adata = adata[adata.obs[column].astype(str) != value].copy()
    result = table(adata, args.context, args.least)
    print(result.round(3).to_string(index=False))
    print(result.drop(columns=["condition", "context"]).mean().round(3).to_string())
    if len(result) > 2:
        print("spearman of trust and relative error", spearmanr(result["trust"], result["relative_error"]))


if __name__ == "__main__":
    main()
