"""The reverse question: which perturbation moves these cells closest to those."""

from __future__ import annotations

__all__ = ["rank_perturbations"]

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.random import Generator
from sklearn.decomposition import PCA

from cfmvc_scvi.data import check_counts, match_genes
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.metrics import bootstrap_energy, log_normalize
from cfmvc_scvi.model import CFMVC

NO_CHANGE = "no change"
_N_COMPONENTS = 30
_CELLS_PER_COMPONENT = 4
_ALIKE = 0.05  # relative difference of depths that needs no thinning


def rank_perturbations(
    adata: AnnData,
    model: CFMVC,
    target: AnnData,
    *,
    perturbations: Sequence[str] | None = None,
    n_cells: int = 500,
    n_resamples: int = 200,
    level: float = 0.9,
    seed: int = 0,
    **kwargs: Any,
) -> pd.DataFrame:
    r"""Rank perturbations by how close they bring cells to a target population.

    The cells are predicted under each perturbation, as counts, and compared with the target by the energy distance of
    log1p CP10k in the principal components of source and target cells. Where depths differ, the deeper side is thinned
    binomially to the depth of the other first. Intervals are percentiles over bootstrap resamples of both populations
    (`metrics.bootstrap_energy`): of the cells, not of the model.

    Parameters
    ----------
    adata
        Cells to move, with the registered columns.
    model
        A trained model.
    target
        Cells to get close to, with raw counts in `X` (or the registered layer) of the model's genes; their columns are
        not read. A batch effect between the two counts as distance: ask for ``batch=`` of the target.
    perturbations
        Candidates; None is every perturbation and combination that training saw.
    n_cells
        At most so many cells of each population are compared, drawn at random.
    n_resamples
        Resamples of the intervals.
    level
        Content of the intervals, in (0, 1).
    seed
        Draws cells and resamples, and is the seed of the predictions.
    **kwargs
        Passed to `CFMVC.predict_counterfactual`: ``dose``, ``batch``, ``strength``, ``heterogeneity`` and so on.

    Returns
    -------
    One row per candidate and one for the cells as they are (``"no change"``), nearest first: ``perturbation``;
    ``energy``, ``low``, ``high`` (distance and its interval); ``closed``, ``closed_low``, ``closed_high``, the share of
    the distance of the unchanged cells that it closes (1: indistinguishable, negative: further away; NaN where the
    unchanged cells are not told from the target); ``p_best``, the share of resamples in which it is the nearest.

    Raises
    ------
    NotTrainedError
        If the flow is not trained.
    UnknownConditionError
        If a candidate is unknown.
    DataError
        If a population has fewer than eight cells, its counts cannot be used, or an argument is out of range.

    Examples
    --------
    >>> target = adata[(adata.obs["cell_type"] == "type_0") & (adata.obs["perturbation"] == "A")].copy()
    >>> ranked = cfmvc_scvi.tl.rank_perturbations(control, model, target, n_resamples=20)
    >>> sorted(ranked["perturbation"])
    ['A', 'A+B', 'B', 'no change']
    """
    if not 0 < level < 1:
        raise DataError(f"level is {level}; it must lie between 0 and 1.")
    if kwargs.get("output", "counts") != "counts" or kwargs.get("n_samples", 1) != 1:
        raise DataError("Populations of counts are compared; leave output= and n_samples= out.")
    names = _candidates(model, perturbations)
    rng = np.random.default_rng(seed)
    goal = _counts(target, model)
    rows, aims = _drawn(adata.n_obs, n_cells, "adata", rng), _drawn(goal.shape[0], n_cells, "target", rng)
    asked = {**kwargs, "indices": rows, "seed": seed}
    moved = [_whole(model.predict_counterfactual(adata, perturbation=name, **asked).X) for name in names]
    sets = [_counts(adata, model)[rows], *moved]
    *sets, goal = _at_one_depth(sets, goal[aims], rng)
    logs = [log_normalize(counts) for counts in (*sets, goal)]
    together = np.vstack([logs[0], logs[-1]])
    rank = min(_N_COMPONENTS, max(2, len(together) // _CELLS_PER_COMPONENT), together.shape[1])
    axes = PCA(rank, random_state=seed).fit(together)
    *values, truth = (axes.transform(cells) for cells in logs)
    found = bootstrap_energy(values, truth, rng, n_resamples)
    low, high = found.interval(level)
    table = pd.DataFrame({"perturbation": [NO_CHANGE, *names], "energy": found.estimate, "low": low, "high": high})
    best = np.bincount(found.resampled.argmin(axis=1), minlength=len(table)) / n_resamples
    table = table.assign(**_closed(found.estimate, found.resampled, level), p_best=best)
    return table.sort_values("energy", kind="stable", ignore_index=True)


def _candidates(model: CFMVC, perturbations: Sequence[str] | None) -> list[str]:
    model._require_flow()
    vocabulary = model.vocabulary
    assert vocabulary is not None  # checked by _require_flow
    if perturbations is None:
        return list(dict.fromkeys(vocabulary.names(model._reference.designs[1:])))
    names = [perturbations] if isinstance(perturbations, str) else list(perturbations)
    if not names or len(set(names)) < len(names):
        raise DataError(f"perturbations names {len(names)} candidates; give at least one, and each once.")
    return [vocabulary.canonical(name) for name in names]


def _counts(cells: AnnData, model: CFMVC) -> sp.csr_matrix:
    """Counts of cells whose columns are not read, in the order of the model's genes."""
    cells, layer = model._rna(cells), model._setup_argument("layer") or model._setup_argument("rna_layer")
    check_counts(cells, layer, training=False, allow_non_integer=bool(model._setup_argument("allow_non_integer")))
    cells = match_genes(cells, np.asarray(model.get_var_names(), dtype=str))
    return _whole(cells.X if layer is None else cells.layers[layer])


def _whole(matrix: Any) -> sp.csr_matrix:
    counts = sp.csr_matrix(matrix, dtype=np.float64)
    counts.data = np.rint(counts.data)
    return counts


def _drawn(n_there: int, n_cells: int, name: str, rng: Generator) -> np.ndarray:
    if min(n_there, n_cells) < 8:
        raise DataError(f"{name} has {n_there} cells, n_cells is {n_cells}; populations of at least 8 are compared.")
    return np.sort(rng.permutation(n_there)[:n_cells])


def _at_one_depth(sets: list[sp.csr_matrix], goal: sp.csr_matrix, rng: Generator) -> list[sp.csr_matrix]:
    """Thin whichever is deeper, all sets or the goal, to the median depth of the other."""
    ours, theirs = (float(np.median(np.asarray(counts.sum(axis=1)))) for counts in (sets[0], goal))
    if min(ours, theirs) <= 0 or abs(ours - theirs) <= _ALIKE * max(ours, theirs):
        return [*sets, goal]
    if ours > theirs:
        return [*(_thinned(counts, theirs / ours, rng) for counts in sets), goal]
    return [*sets, _thinned(goal, ours / theirs, rng)]


def _thinned(counts: sp.csr_matrix, share: float, rng: Generator) -> sp.csr_matrix:
    result = counts.copy()
    result.data = rng.binomial(counts.data.astype(np.int64), share).astype(float)
    return result


def _closed(estimate: np.ndarray, resampled: np.ndarray, level: float) -> dict[str, np.ndarray]:
    """Share of the distance of the unchanged cells, the first, that is closed, with its interval."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(resampled[:, :1] > 0, 1 - resampled / resampled[:, :1], -np.inf)
    low, high = np.quantile(share, [0.5 - level / 2, 0.5 + level / 2], axis=0, method="inverted_cdf")
    told = bool((resampled[:, 0] > 0).mean() > 0.5 + level / 2) and estimate[0] > 0
    closed = 1 - estimate / estimate[0]
    return {
        name: values if told else np.full(len(estimate), np.nan)
        for name, values in (("closed", closed), ("closed_low", low), ("closed_high", high))
    }
