"""Perturbations that are held out in groups: never seen at all, or seen in other contexts only.

python benchmarks/unseen.py papalexi.h5ad --context batch --batch batch
python benchmarks/unseen.py papalexi.h5ad --context batch --batch batch --embeddings pathways.csv
python benchmarks/unseen.py papalexi.h5ad --context batch --batch batch --seen-elsewhere
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import anndata as ad
import pandas as pd
from anndata import AnnData

from cfmvc_scvi import benchmark as bm
from cfmvc_scvi.pp import gene_embeddings

OTHERS = ("no change", "mean of others", "count-coupled mean of others", "linear", "count-coupled linear")
ELSEWHERE = ("nearest shift", "fold-change resampling", "count-coupled nearest, theta 1")
VARIANTS = {
    "CFMVC": {},
    "CFMVC, no flow": {"heterogeneity": 0.0},
}


def folds(adata: AnnData, columns: bm.Columns, args: argparse.Namespace) -> list[bm.Fold]:
    """One fold per held-out (perturbation, context); those of a group share their training cells."""
    keys = {"perturbation_key": columns.perturbation_key, "context_key": columns.context_key}
    found = bm.make_folds(adata, "perturbation", **keys, control=columns.control, n_splits=args.groups)
    if not args.seen_elsewhere:
        return found
    context = adata.obs[args.context].astype(str).to_numpy()
    names = sorted(set(context))
    return [
        replace(
            fold,
            train=fold.train | (context != fold.context),
            training=len(names) * fold.training + names.index(fold.context),
        )
        for fold in found
    ]


def baselines(columns: bm.Columns, seen_elsewhere: bool) -> dict[str, bm.Predictor]:
    """Simple baselines by name."""
    names = (*OTHERS, *(ELSEWHERE if seen_elsewhere else ()))
    return {name: bm.baseline_predictor(bm.BASELINES[name], columns) for name in names}


def models(adata: AnnData, columns: bm.Columns, args: argparse.Namespace) -> dict[str, bm.Predictor]:
    """Variants of one model per training set, with features of all perturbations."""
    names = sorted(set(adata.obs[args.perturbation].astype(str)) - {args.control})

    def describe(cells: AnnData) -> None:
        if args.embeddings is not None:
            cells.uns["features"] = pd.read_csv(args.embeddings, index_col=0).reindex(names)
            return
        keys = {"perturbation_key": columns.perturbation_key, "context_key": columns.context_key}
        cells.uns["features"] = gene_embeddings(cells, names, **keys, control=columns.control)

    setup = {
        "perturbation_key": args.perturbation,
        "control_category": args.control,
        "labels_key": args.context,
        "batch_key": args.batch,
    }
    if not args.seen_elsewhere:
        setup["perturbation_embeddings_key"] = "features"
    training = {"accelerator": "cpu", "enable_progress_bar": False, "max_epochs": args.epochs}
    prepare = None if args.seen_elsewhere else describe
    return bm.cfmvc_predictors(setup, VARIANTS, train_kwargs=training, prepare=prepare)


def main() -> None:
    """Print the scores of all methods, and the model against the best simple baseline of each metric."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--context", default="cell_type")
    parser.add_argument("--batch")
    parser.add_argument("--perturbation", default="perturbation")
    parser.add_argument("--control", default="control")
    parser.add_argument("--embeddings", type=Path, help="CSV of features, perturbations in rows; else co-expression")
    parser.add_argument("--seen-elsewhere", action="store_true", help="hold a group out in one context at a time")
    parser.add_argument("--groups", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, help="of each stage; one is enough for the rows without flow")
    parser.add_argument("--without", nargs="+", default=[], help="names of rows to leave out")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    start = time.perf_counter()
    adata = ad.read_h5ad(args.data)
    columns = bm.Columns(args.perturbation, args.context, args.control)
    simple = baselines(columns, args.seen_elsewhere)
    methods = {k: v for k, v in (simple | models(adata, columns, args)).items() if k not in args.without}
    scores = bm.evaluate(adata, folds(adata, columns, args), methods, range(args.seeds))
    if args.out:
        scores.to_csv(args.out, index=False)
    print(bm.summarise(scores).round(3).T.to_string())
    for name in [name for name in VARIANTS if name in methods]:
        compared = bm.compare(scores, name, [other for other in simple if other in methods], cluster="condition")
        print(f"\n{bm.verdict(compared, name)}\n{compared.round(3).to_string()}")
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
