"""Means of held-out perturbations by closed form, without a network: what docs/user_guide.md says of knock-outs.

python benchmarks/unseen_means.py papalexi.h5ad --context batch --embeddings pathways.csv
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from cfmvc_scvi.config import EffectConfig, FeatureConfig
from cfmvc_scvi.model.relatives import Relatives
from cfmvc_scvi.pp import gene_embeddings
from cfmvc_scvi.shift import FeatureRegression, PseudoBulk, effect_goal, expected_weights, pseudo_bulk, shared_shift


def by_perturbation(
    shifts: np.ndarray, noise: np.ndarray, predict: Callable[[np.ndarray, np.ndarray, int], np.ndarray]
) -> np.ndarray:
    """Predictions (perturbations, contexts, genes), each from the shifts and noise of the others in all contexts."""
    flat, variance = (array.reshape(len(array), -1) for array in (shifts, noise))
    rows = [
        predict(np.delete(flat, left_out, axis=0), np.delete(variance, left_out, axis=0), left_out)
        for left_out in range(len(flat))
    ]
    return np.array(rows).reshape(shifts.shape)


def with_features(table: pd.DataFrame) -> Callable[[np.ndarray, np.ndarray, int], np.ndarray]:
    """Prediction by `FeatureRegression`."""
    values = table.to_numpy(dtype=float)

    def predict(shifts: np.ndarray, noise: np.ndarray, left_out: int) -> np.ndarray:
        regression = FeatureRegression(shifts, noise, np.delete(values, left_out, axis=0), FeatureConfig())
        return regression.predict(values[left_out]).mean

    return predict


def seen_elsewhere(relatives: Relatives, shared: bool) -> np.ndarray:
    """Empirical-Bayes shifts (perturbations, contexts, genes), each without the cells of its own context."""
    table, bulk = relatives._table, relatives.bulk
    control = bulk.take(table[0])
    result = np.zeros((len(table) - 1, *control.log_mean.shape))
    for condition in range(1, len(table)):
        start: PseudoBulk = relatives.expected(condition) if shared else control
        for context in range(table.shape[1]):
            goal = effect_goal(start, bulk.take(table[condition]), EffectConfig(), exclude=context).goal
            result[condition - 1, context] = goal[context] - control.log_mean[context]
    return result


def main() -> None:
    """Print the mean Pearson correlation with the measured shift, and the squared error relative to no change."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--context", default="cell_type")
    parser.add_argument("--perturbation", default="perturbation")
    parser.add_argument("--control", default="control")
    parser.add_argument("--embeddings", type=Path, help="CSV of features, perturbations in rows")
    args = parser.parse_args()

    adata = ad.read_h5ad(args.data)
    label, context = (adata.obs[key].astype(str).to_numpy() for key in (args.perturbation, args.context))
    names = [args.control, *sorted(set(label) - {args.control})]
    groups, code = np.unique(
        np.column_stack([pd.Index(names).get_indexer(label), np.unique(context, return_inverse=True)[1]]),
        axis=0,
        return_inverse=True,
    )
    bulk = pseudo_bulk(sp.csr_matrix(adata.X), code.reshape(-1), len(groups))
    designs = np.vstack([np.zeros(len(names) - 1), np.eye(len(names) - 1)]).astype(np.float32)
    relatives = Relatives(designs, groups, bulk)
    rows = relatives._table
    shifts = bulk.log_mean[rows[1:]] - bulk.log_mean[rows[0]]
    noise = bulk.log_noise[rows[1:]]

    keys = {"perturbation_key": args.perturbation, "context_key": args.context, "control": args.control}
    features = {"co-expression": gene_embeddings(adata, names[1:], **keys)}
    if args.embeddings:
        features["file"] = pd.read_csv(args.embeddings, index_col=0).reindex(names[1:])
    rng = np.random.default_rng(0)
    features["random numbers"] = pd.DataFrame(rng.standard_normal((len(names) - 1, 5)))
    predictions = {
        "mean of others": by_perturbation(shifts, noise, lambda s, v, p: s.mean(axis=0)),
        "what others share": by_perturbation(shifts, noise, lambda s, v, p: shared_shift(s).weights @ s),
        "expected of any": by_perturbation(shifts, noise, lambda s, v, p: expected_weights(s, v.mean(axis=1)) @ s),
        **{f"features: {name}": by_perturbation(shifts, noise, with_features(t)) for name, t in features.items()},
        "seen elsewhere, around control": seen_elsewhere(relatives, shared=False),
        "seen elsewhere, around what others share": seen_elsewhere(relatives, shared=True),
    }
    table = {}
    for name, predicted in predictions.items():
        pairs = zip(predicted.reshape(-1, bulk.n_genes), shifts.reshape(-1, bulk.n_genes), strict=True)
        table[name] = {
            "Pearson": np.mean([np.corrcoef(p, t)[0, 1] for p, t in pairs]),
            "squared error": ((predicted - shifts) ** 2).sum() / (shifts**2).sum(),
        }
    print(pd.DataFrame(table).T.round(3).to_string())


if __name__ == "__main__":
    main()
