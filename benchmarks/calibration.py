"""Coverage of intervals, and trust against error, over held-out (condition, context) pairs.

What the model says with all cells of the pair left out, but without its networks, which play no part in it.

python benchmarks/calibration.py kang.h5ad --context cell_type --drop batch=donor_unknown
python benchmarks/calibration.py simulated
python benchmarks/calibration.py varied
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from cfmvc_scvi.benchmark import MeasuredEffect, StatedEffect, stated_scores
from cfmvc_scvi.config import ReferenceConfig, SimulationConfig
from cfmvc_scvi.data import Contexts
from cfmvc_scvi.datasets import simulated_perturbation
from cfmvc_scvi.model.reference import Panel, Reference
from cfmvc_scvi.model.trust import effect_interval, trust_of

LEVELS = (0.5, 0.8, 0.9, 0.95)
VARIED = [
    SimulationConfig(effect_size=size, sharing=sharing) for size in (0.3, 0.8, 2.0) for sharing in (0.4, 0.9)
]  # weak and strong effects, alike and unlike over contexts


def whole(adata: ad.AnnData, context_key: str, least: int) -> tuple[list[str], Reference]:
    """Names of conditions, control first, and what a model knows of all groups of at least so many cells."""
    condition, context = (adata.obs[key].astype(str).to_numpy() for key in ("perturbation", context_key))
    size = pd.Series(1, index=range(adata.n_obs)).groupby([condition, context]).transform("sum").to_numpy()
    has_control = np.isin(context, context[(condition == "control") & (size >= least)])
    kept = np.flatnonzero((size >= least) & has_control)
    names = ["control", *sorted(set(condition[kept]) - {"control"})]
    contexts, context_code = np.unique(context[kept], return_inverse=True)
    cells = (
        adata.obs_names[kept].to_numpy(dtype=str),
        pd.Index(names).get_indexer(condition[kept]),
        context_code,
        kept,
    )
    panel = Panel(sp.csr_matrix(adata.X)[kept], {}, *cells)
    designs = np.vstack([np.zeros(len(names) - 1), np.eye(len(names) - 1)]).astype(np.float32)
    known = Contexts.from_codes(context_code, list(contexts))
    return names, Reference.build(panel, designs, known, ReferenceConfig(), np.random.default_rng(0))


def without(reference: Reference, group: int) -> Reference:
    """What a model knows that has not seen a group."""
    others = np.arange(len(reference.groups)) != group
    return replace(reference, groups=reference.groups[others], bulk=reference.bulk.take(others), _goals={})


def held_out(names: list[str], reference: Reference) -> Iterator[dict[str, object]]:
    """Scores of every (condition, context) whose condition was observed in another context too.

    Beside `benchmark.stated_scores`: coverage of the 90 % intervals of the tenth of genes of largest predicted effect,
    and their mean width.
    """
    for group, (condition, context) in enumerate(reference.groups):
        if condition == 0 or (reference.groups[:, 0] == condition).sum() < 2:
            continue
        known, truth = without(reference, group), reference.bulk.take([group])
        answer, base = known.level(reference.designs[condition], int(context)), known.control_level(int(context))
        measured = MeasuredEffect(truth.log_mean[0] - base.mean, truth.log_noise[0], base.sd**2)
        n_cells, effect = int(truth.n_cells[0]), answer.mean - base.mean
        intervals = {level: effect_interval(known, answer, int(context), level, n_cells) for level in LEVELS}
        low, high = intervals[0.9]
        inside = (low <= measured.effect) & (measured.effect <= high)
        top = np.argsort(-np.abs(effect))[: len(inside) // 10]
        yield {
            "condition": names[condition],
            "context": str(reference.contexts.names[context]),
            **stated_scores(StatedEffect(effect, intervals, trust_of(known, answer, int(context))), measured),
            "coverage_90 top": inside[top].mean(),
            "width": (high - low).mean(),
        }


def data_sets(name: str, drop: str | None) -> list[ad.AnnData]:
    """The file, the simulated data set, or the varied ones, whose pairs are ranked together."""
    if name == "simulated":
        options = {"n_cell_types": 6, "perturbations": ("A", "B", "C", "D"), "combinations": False}
        return [simulated_perturbation(6000, **options)]
    if name == "varied":
        options = {"n_cell_types": 5, "combinations": False}
        return [
            simulated_perturbation(3000, 300, **options, config=config, seed=seed)
            for seed, config in enumerate(VARIED, start=1)
        ]
    adata = ad.read_h5ad(name)
    if drop:
        column, value = drop.split("=", 1)
        adata = adata[adata.obs[column].astype(str) != value].copy()
    return [adata]


def main() -> None:
    """Print the table and its summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="h5ad with counts and obs['perturbation'], 'simulated' or 'varied'")
    parser.add_argument("--context", default="cell_type")
    parser.add_argument("--drop", help="COLUMN=VALUE of cells to leave out")
    parser.add_argument("--least", type=int, default=10, help="cells of a group that counts as measured")
    args = parser.parse_args()
    start = time.process_time()
    parts = [
        pd.DataFrame(held_out(*whole(adata, args.context, args.least))) for adata in data_sets(args.data, args.drop)
    ]
    result = pd.concat(parts, ignore_index=True)
    print(result.round(3).to_string(index=False))
    print(result.drop(columns=["condition", "context"]).mean().round(3).to_string())
    ranks = result.drop(columns=["condition", "context"]).corr("spearman")["trust"]
    print(f"{len(result)} pairs, {time.process_time() - start:.0f} CPU seconds")
    print(
        f"Spearman of trust with error {ranks['relative_error']:.2f}, with 1 - Pearson {ranks['correlation_error']:.2f}"
    )


if __name__ == "__main__":
    main()
