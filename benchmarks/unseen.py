"""Perturbations that are held out in groups: never seen at all, or seen in other contexts only.

python benchmarks/unseen.py papalexi.h5ad --context batch --batch batch --seeds 2
python benchmarks/unseen.py papalexi.h5ad --context batch --batch batch --embeddings pathways.csv
python benchmarks/unseen.py papalexi.h5ad --context batch --batch batch --seen-elsewhere
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import scvi
from anndata import AnnData

from cfmvc_scvi import CFMVC
from cfmvc_scvi import benchmark as bm
from cfmvc_scvi.benchmark import _coupling as coupling
from cfmvc_scvi.metrics import log_normalize

MODELS = {"CFMVC": {}, "EB mean + coupling, no flow": {"heterogeneity": 0.0}}
STRONGEST = ("mean of others", "mean of others, coupled counts")


class CoupledMeanOfOthers(bm.Baseline):
    """Mean shift of the other perturbations of the context, realised on the cells' own counts."""

    def _goal(self, control: np.ndarray, condition: str, context: str) -> np.ndarray:
        others = self.train.other_conditions(condition, context)
        shift = np.mean([self.shift(other, context) for other in others], axis=0)
        return np.maximum(log_normalize(control).mean(axis=0) + shift, 0.0)

    def predict(self, control_counts, condition, context, n_cells, rng) -> bm.Prediction:
        """Draw control cells without replacement and move their counts to the goal."""
        goal = self._goal(control_counts.toarray().astype(float), condition, context)
        cells = bm.draw_cells(control_counts, n_cells, rng).toarray().astype(float)
        return bm.Prediction(sp.csr_matrix(coupling.match_mean(cells, goal, np.ones_like(goal), rng)))


class FoldChangeOfOthers(bm.Baseline):
    """Real counts at the geometric mean fold change of the other perturbations of the context."""

    def predict(self, control_counts, condition, context, n_cells, rng) -> bm.Prediction:
        """Draw control cells without replacement and resample their counts."""
        others = self.train.other_conditions(condition, context)
        rate = partial(coupling.bulk_rate)
        base = rate(self.train.group(self.train.control, context).toarray()) + 0.02
        logs = [np.log((rate(self.train.group(other, context).toarray()) + 0.02) / base) for other in others]
        cells = bm.draw_cells(control_counts, n_cells, rng).toarray().astype(float)
        return bm.Prediction(sp.csr_matrix(coupling.superpose(cells, np.exp(np.mean(logs, axis=0)), 1.0, rng)))


class PCARidge(bm.Baseline):
    """Linear model of Ahlmann-Eltze, Huber and Anders (2025): shift = G W p + b, p the row of G of the target.

    G are principal components of the perturbed profiles of training; b is the mean shift, which is all there is for a
    target that was not measured.
    """

    def __init__(self, genes: pd.Index, n_components: int = 10, ridge: float = 0.1) -> None:
        super().__init__()
        self.genes, self.n_components, self.ridge = genes, n_components, ridge

    def predict(self, control_counts, condition, context, n_cells, rng) -> bm.Prediction:
        """Draw control cells without replacement and shift them."""
        others = self.train.other_conditions(condition, context)
        shifts = np.array([self.shift(other, context) for other in others])
        b = shifts.mean(axis=0)
        shift = b
        known = [row for row, other in enumerate(others) if other in self.genes]
        if condition in self.genes and known:
            g = np.linalg.svd(shifts - b, full_matrices=False)[2][: self.n_components].T
            p = g[self.genes.get_indexer([others[row] for row in known])]
            left = np.linalg.solve(g.T @ g + self.ridge * np.eye(g.shape[1]), g.T @ (shifts[known] - b).T)
            w = left @ p @ np.linalg.inv(p.T @ p + self.ridge * np.eye(g.shape[1]))
            shift = b + g @ w @ g[self.genes.get_loc(condition)]
        cells = log_normalize(bm.draw_cells(control_counts, n_cells, rng))
        return bm.Prediction(np.maximum(cells + shift, 0.0), "log1p_cp10k")


def folds(adata: AnnData, args: argparse.Namespace) -> Iterator[bm.Fold]:
    """One fold per held-out (perturbation, context); those of a group share their training cells."""
    label, context = (adata.obs[key].astype(str).to_numpy() for key in (args.perturbation, args.context))
    names = np.random.default_rng(0).permutation(sorted(set(label) - {args.control}))
    for group in np.array_split(names, args.groups):
        for inside in sorted(set(context)):
            held = np.isin(label, group) & ((context == inside) | (not args.seen_elsewhere))
            for name in group:
                truth = (label == name) & (context == inside)
                if truth.sum() < args.min_cells:
                    continue
                query = (label == args.control) & (context == inside)
                siblings = (context == inside) & ~held & (label != args.control)
                yield bm.Fold(str(name), inside, ~held, query, truth, siblings)


def models(adata: AnnData, args: argparse.Namespace, base_seed: int) -> dict[str, bm.Predictor]:
    """Variants of one model per training set, with features of all perturbations."""
    latest: dict[int, CFMVC] = {}
    names = sorted(set(adata.obs[args.perturbation].astype(str)) - {args.control})

    def trained(train: AnnData) -> CFMVC:
        key = hash(tuple(train.obs_names))
        if key not in latest:
            latest.clear()
            cells = train.copy()
            if not args.seen_elsewhere:
                cells.uns["embeddings"] = table(args, cells, names)
            scvi.settings.seed = base_seed
            CFMVC.setup_anndata(
                cells,
                perturbation_key=args.perturbation,
                control_category=args.control,
                labels_key=args.context,
                batch_key=args.batch,
                **({} if args.seen_elsewhere else {"perturbation_embeddings_key": "embeddings"}),
            )
            latest[key] = CFMVC(cells)
            latest[key].train(accelerator="cpu", enable_progress_bar=False)
        return latest[key]

    def predictor(options: dict[str, float]) -> bm.Predictor:
        def predict(train: AnnData, query: AnnData, fold: bm.Fold, seed: int) -> bm.Prediction:
            model = trained(train)
            n_samples = -(-int(fold.truth.sum()) // query.n_obs)
            result = model.predict_counterfactual(
                query.copy(), perturbation=fold.condition, seed=seed, n_samples=n_samples, **options
            )
            return bm.Prediction(result.X)

        return predict

    return {name: predictor(options) for name, options in MODELS.items()}


def table(args: argparse.Namespace, cells: AnnData, names: list[str]) -> pd.DataFrame:
    """Features from a file, or from co-expression among the control cells of training."""
    if args.embeddings is not None:
        return pd.read_csv(args.embeddings, index_col=0).reindex(names)
    from cfmvc_scvi.pp import gene_embeddings

    keys = {"perturbation_key": args.perturbation, "context_key": args.context, "control": args.control}
    return gene_embeddings(cells, names, **keys)


def main() -> None:
    """Print the table, and the gain over the strongest baselines with intervals over perturbations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--context", default="cell_type")
    parser.add_argument("--batch")
    parser.add_argument("--perturbation", default="perturbation")
    parser.add_argument("--control", default="control")
    parser.add_argument("--embeddings", type=Path, help="CSV of features, perturbations in rows; else co-expression")
    parser.add_argument("--seen-elsewhere", action="store_true", help="hold a group out in one context at a time")
    parser.add_argument("--groups", type=int, default=6)
    parser.add_argument("--min-cells", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rows", default="all", help="all, baselines or models")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    start = time.perf_counter()
    adata = ad.read_h5ad(args.data)
    keys = {"perturbation_key": args.perturbation, "context_key": args.context, "control": args.control}
    classes = {
        "no change": bm.NoChange,
        "mean of others": bm.MeanOfOtherPerturbations,
        "mean of others, coupled counts": CoupledMeanOfOthers,
        "fold change of others": FoldChangeOfOthers,
        "PCA-ridge": partial(PCARidge, adata.var_names),
    }
    if args.seen_elsewhere:
        classes |= {"other context's shift": bm.NearestContextShift}
    baselines = {name: bm.baseline_predictor(cls, **keys) for name, cls in classes.items()}
    parts = []
    for seed in range(args.seeds):
        chosen = {} if args.rows == "models" else dict(baselines)
        chosen |= {} if args.rows == "baselines" else models(adata, args, seed)
        parts.append(bm.evaluate(adata, folds(adata, args), chosen, [seed]))
    scores = pd.concat(parts)
    if args.out:
        scores.to_csv(args.out, index=False)
    summary = bm.summarise(scores)
    print(summary.round(3).T.to_string())
    # perturbations are what is drawn, so they take the place of contexts in the bootstrap
    swapped = scores.rename(columns={"condition": "context", "context": "condition"})
    for baseline in STRONGEST:
        for model in MODELS:
            if {model, baseline} <= set(summary.index):
                print(f"\n{model} minus {baseline}, 95 % interval over perturbations")
                print(bm.paired_differences(swapped, model, baseline, np.random.default_rng(0)).round(3).T.to_string())
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
