"""Quick table of baselines, ceiling and models on one data set.

python benchmarks/quick.py kang_small.h5ad --context cell_type --batch batch --seeds 2
python benchmarks/quick.py gbm.h5ad --context batch --batch batch --seeds 2
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

from cfmvc_scvi import benchmark as bm

BASELINES: dict[str, Callable[[], bm.Baseline]] = {
    "no change": bm.NoChange,
    "mean shift": bm.MeanShift,
    "nearest shift": bm.NearestContextShift,
    "fold-change resampling": bm.FoldChangeResampling,
    "pooled others": bm.PooledOtherContexts,
    "count-coupled nearest": bm.CountCoupledNearestShift,
    "count-coupled nearest, theta 1": partial(bm.CountCoupledNearestShift, dispersion=1.0),
}
# The same trained model with and without the flow's differences between cells.
MODELS = {"CFMVC": {}, "EB mean + coupling, no flow": {"heterogeneity": 0.0}}
STRONGEST = ("nearest shift", "count-coupled nearest", "count-coupled nearest, theta 1")

COLUMNS = {
    "pearson_delta": "Pearson",
    "pearson_delta_top": "top 50",
    "pearson_delta_specific": "specific",
    "r2_of_means": "R2",
    "weighted_mse": "wMSE",
    "weighted_r2": "wR2",
    "energy": "energy",
    "mmd": "MMD",
    "de_overlap": "DES",
    "sig_jaccard": "jaccard",
    "lfc_nmae": "nMAE",
    "direction_fidelity": "direct.",
    "auprc_de": "AUPRC",
    "variance_log_ratio": "var",
    "zero_share": "zeros",
    "correlation_structure": "corr.",
    "context_discrimination": "PDS ctx",
    "perturbation_discrimination": "PDS pert",
}


def table(args: argparse.Namespace) -> pd.DataFrame:
    """Tidy scores of all rows."""
    adata = ad.read_h5ad(args.data)
    keys = {"perturbation_key": args.perturbation, "context_key": args.context, "control": args.control}
    folds = list(bm.leave_one_context_out(adata, **keys))
    if args.folds != "all":
        wanted = args.folds.split(",")
        folds = [fold for fold in folds if fold.context in wanted]
    predictors = {name: bm.baseline_predictor(cls, **keys) for name, cls in BASELINES.items()} | _models(args)
    if args.rows != "all":
        predictors = {name: predictors[name] for name in args.rows.split(";")}
    return bm.evaluate(adata, folds, predictors, range(args.seeds))


def _models(args: argparse.Namespace) -> dict[str, bm.Predictor]:
    setup = {"perturbation_key": args.perturbation, "control_category": args.control, "batch_key": args.batch}
    setup |= {"labels_key": args.labels or args.context}
    if args.labels:  # the context that is left out is then a replicate within cell types
        setup |= {"sample_key": args.context}
    training = {"accelerator": "cpu", "enable_progress_bar": False}
    return bm.cfmvc_predictors(setup, MODELS, train_kwargs=training)


def main() -> None:
    """Print the table, and the gain of each model over the strongest baselines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--context", default="cell_type", help="column of obs whose groups are left out")
    parser.add_argument("--labels", help="column of obs with cell types, if the contexts are donors or patients")
    parser.add_argument("--batch", help="column of obs with technical batches")
    parser.add_argument("--perturbation", default="perturbation")
    parser.add_argument("--control", default="control")
    parser.add_argument("--folds", default="all", help="all, or contexts separated by commas")
    parser.add_argument("--rows", default="all", help="all, or names of rows separated by semicolons")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the tidy scores to this CSV file")
    args = parser.parse_args()

    start = time.perf_counter()
    scores = table(args)
    summary = bm.summarise(scores)
    shown = summary[[name for name in COLUMNS if name in summary]].rename(columns=COLUMNS)
    print(shown.round(3).to_string())
    for model in MODELS:
        for name in STRONGEST:
            if {model, name} <= set(summary.index):
                print(f"\n{model} minus {name}, 95 % interval over contexts")
                print(bm.paired_differences(scores, model, name, np.random.default_rng(0)).round(3).to_string())
    if args.out:
        scores.to_csv(args.out, index=False)
    print(f"\n{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
