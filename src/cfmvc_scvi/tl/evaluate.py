"""Scores of given predicted cells against real ones."""

from __future__ import annotations

__all__ = ["evaluate"]

import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from cfmvc_scvi import benchmark as bm
from cfmvc_scvi._keys import COMBINATION_SEPARATOR
from cfmvc_scvi.data import check_counts, check_labels, match_genes
from cfmvc_scvi.errors import CFMVCWarning, DataError
from cfmvc_scvi.metrics import log_normalize

_MIN_CELLS = 8  # of a group, so that one half of it can predict the other
_ONE = "all cells"


def evaluate(
    predicted: AnnData,
    truth: AnnData,
    control: AnnData,
    *,
    perturbation_key: str | None = None,
    context_key: str | None = None,
    suite: Literal["default", "challenge"] = "default",
    scale: Literal["counts", "log1p_cp10k"] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Score predicted cells against real perturbed cells, between floor and ceiling.

    Groups are the (condition, context) of the real cells, scored where there are predicted cells of them. Genes are
    matched by name.

    Parameters
    ----------
    predicted
        Predicted cells in X.
    truth, control
        Raw UMI counts of real perturbed cells, and of control cells.
    perturbation_key
        Column of obs with the condition, in `truth` and `predicted`; cells from `CFMVC.predict_counterfactual` have it
        in ``target_condition``, which is read instead. None: all are of one condition.
    context_key
        Column of obs with the context, in all three: cells are compared within it. None: one context.
    suite
        "default": the metrics of `benchmark.evaluate`. "challenge": those of the Virtual Cell Challenge 2026, by
        cell-eval2 (extra ``eval``), on counts.
    scale
        Of the predicted values; None: what ``uns["cfmvc_benchmark"]["scale"]`` says, else "counts".
    seed
        Draws halves and subsets.

    Returns
    -------
    One row per score: method, condition, context, seed, metric, value, with methods "prediction", "no change" (control
    cells: the floor) and "ceiling" (one half of the real cells for the other). Discrimination is over groups, whose
    name is then `*`. `benchmark.summarise` and `benchmark.compare` take this table.

    Raises
    ------
    UnknownConditionError
        If a column is missing.
    DataError
        If counts are no counts, genes are missing, or no group has both predicted and enough real cells.
    MissingExtraError
        If the suite needs cell-eval2 and it is not installed.

    Warns
    -----
    CFMVCWarning
        If real groups are left out, for they were not predicted or have fewer than eight cells or controls.

    Examples
    --------
    >>> scores = cfmvc_scvi.tl.evaluate(predicted, real, control, context_key="cell_type")
    >>> summary = cfmvc_scvi.benchmark.summarise(scores)
    """
    if suite not in ("default", "challenge"):
        raise DataError(f"suite is '{suite}'; it is 'default' or 'challenge'.")
    for cells in (truth, control):
        check_counts(cells, None, training=False)
    genes = np.asarray(truth.var_names, dtype=str)
    predicted, control = match_genes(predicted, genes), match_genes(control, genes)
    if scale is None:
        scale = cast(bm.Scale, str(predicted.uns.get("cfmvc_benchmark", {}).get("scale", "counts")))
    own_key = "target_condition" if "target_condition" in predicted.obs else perturbation_key
    labelled = (
        _Labelled(predicted, _conditions(predicted, perturbation_key and own_key), _labels(predicted, context_key)),
        _Labelled(truth, _conditions(truth, perturbation_key), _labels(truth, context_key)),
        _Labelled(control, _labels(control, None), _labels(control, context_key)),
    )
    groups = list(_groups(*labelled))
    if suite == "challenge":
        return _challenge(groups, labelled, seed)
    return _default(groups, labelled, scale, seed)


class _Labelled(NamedTuple):
    """Cells with the condition and the context of each."""

    cells: AnnData
    condition: NDArray[np.str_]
    context: NDArray[np.str_]

    def of(self, condition: str | None, context: str) -> AnnData:
        wanted = self.context == context
        return self.cells[wanted if condition is None else wanted & (self.condition == condition)]

    def take(self, rows: NDArray[Any]) -> _Labelled:
        return _Labelled(self.cells[rows], self.condition[rows], self.context[rows])

    def within(self, context: str, conditions: list[str]) -> _Labelled:
        return self.take((self.context == context) & np.isin(self.condition, conditions))


def _labels(cells: AnnData, key: str | None) -> NDArray[np.str_]:
    if key is None:
        return np.full(cells.n_obs, _ONE)
    return check_labels(cells.obs, key, "group").to_numpy().astype(str)


def _conditions(cells: AnnData, key: str | None) -> NDArray[np.str_]:
    """Labels with the parts of combinations in alphabetical order."""
    labels = pd.Series(_labels(cells, key))
    parts = {name: COMBINATION_SEPARATOR.join(sorted(name.split(COMBINATION_SEPARATOR))) for name in labels.unique()}
    return labels.map(parts).to_numpy().astype(str)


def _groups(predicted: _Labelled, truth: _Labelled, control: _Labelled) -> Iterator[tuple[str, str]]:
    found = sorted(set(zip(truth.condition.tolist(), truth.context.tolist(), strict=True)))
    sizes = {
        group: (truth.of(*group).n_obs, control.of(None, group[1]).n_obs, predicted.of(*group).n_obs) for group in found
    }
    usable = [
        group
        for group, (n_true, n_control, n_own) in sizes.items()
        if min(n_true, n_control) >= _MIN_CELLS and n_own > 1
    ]
    left_out = [f"{condition} in {context}" for condition, context in found if (condition, context) not in usable]
    what = f"without predicted cells, or with fewer than {_MIN_CELLS} real or control cells: {', '.join(left_out[:5])}"
    if not usable:
        predicted_groups = sorted(set(zip(predicted.condition.tolist(), predicted.context.tolist(), strict=True)))
        shown = ", ".join(f"{condition} in {context}" for condition, context in predicted_groups[:5])
        raise DataError(f"no group can be scored, all {len(found)} are {what}; predicted: {shown}.")
    if left_out:
        warnings.warn(f"{len(left_out)} of {len(found)} groups are left out, {what}", CFMVCWarning, stacklevel=3)
    yield from usable


def _default(
    groups: list[tuple[str, str]], sides: tuple[_Labelled, _Labelled, _Labelled], scale: bm.Scale, seed: int
) -> pd.DataFrame:
    predicted, truth, control = sides
    scored: dict[tuple[str, int], dict[tuple[str, str], bm.GroupScore]] = {
        (name, seed): {} for name in ("prediction", bm.FLOOR, bm.CEILING)
    }
    for number, group in enumerate(groups):
        rng = partial(np.random.default_rng, (seed, number))
        real, unperturbed = (sp.csr_matrix(cells.X) for cells in (truth.of(*group), control.of(None, group[1])))
        others = truth.cells[(truth.context == group[1]) & (truth.condition != group[0])]
        profile = log_normalize(others.X).mean(axis=0) if others.n_obs else None
        score = partial(bm.score_prediction, perturbed_profile=profile)
        own = bm.Prediction(predicted.of(*group).X, scale)
        floor = bm.Prediction(bm.draw_cells(unperturbed, real.shape[0], rng()))
        scored["prediction", seed][group] = score(own, real, unperturbed, rng())
        scored[bm.FLOOR, seed][group] = score(floor, real, unperturbed, rng())
        scored[bm.CEILING, seed][group] = bm.score_ceiling(real, unperturbed, rng(), perturbed_profile=profile)
    return bm.tidy_scores(scored)


def _challenge(groups: list[tuple[str, str]], sides: tuple[_Labelled, _Labelled, _Labelled], seed: int) -> pd.DataFrame:
    predicted, truth, control = sides
    tables = []
    for context in dict.fromkeys(context for _, context in groups):
        wanted = [condition for condition, other in groups if other == context]
        own, real = (side.within(context, wanted) for side in (predicted, truth))
        unperturbed = control.of(None, context)
        rng = np.random.default_rng(seed)
        halves = [real.take(rows) for rows in _halves(real.condition, rng)]
        n_each = [(name, min(int((real.condition == name).sum()), unperturbed.n_obs)) for name in wanted]
        rows = np.concatenate([rng.permutation(unperturbed.n_obs)[:n] for _, n in n_each])
        named = np.repeat(wanted, [n for _, n in n_each])
        floor = _Labelled(unperturbed[rows], named, np.full(len(rows), context))
        pairs = {"prediction": (own, real), bm.FLOOR: (floor, real), bm.CEILING: halves}
        for method, (left, right) in pairs.items():
            table = bm.challenge_scores(left.cells, right.cells, unperturbed, left.condition, right.condition)
            tables.append(table.assign(method=method, context=context, seed=seed))
    return pd.concat(tables, ignore_index=True)[["method", "condition", "context", "seed", "metric", "value"]]


def _halves(condition: NDArray[np.str_], rng: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of two random halves of the cells of each condition."""
    parts = [np.array_split(rng.permutation(np.flatnonzero(condition == name)), 2) for name in np.unique(condition)]
    first, second = zip(*parts, strict=True)
    return np.concatenate(first), np.concatenate(second)
