"""Tables over folds, and what one method gains over another with an interval that respects contexts."""

from __future__ import annotations

__all__ = ["paired_differences", "summarise"]

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import NDArray

from cfmvc_scvi.benchmark.cells import ALL_GROUPS
from cfmvc_scvi.errors import DataError, UnknownConditionError

Array = NDArray[np.float64]

_RATIOS = {"energy": ("energy_distance", "energy_scale"), "mmd": ("mmd_distance", "mmd_scale")}


def _with_ratios(means: pd.DataFrame) -> pd.DataFrame:
    """Means of metrics, in columns, with the parts of a normalised distance replaced by their ratio."""
    for name, (distance, scale) in _RATIOS.items():
        means.insert(list(means.columns).index(distance), name, means[distance] / means[scale])
        means = means.drop(columns=[distance, scale])
    return means


def _means_of_draws(scores: pd.DataFrame) -> Callable[[Array], pd.DataFrame]:
    """Function from how often each context is drawn (draws, contexts) to the means of all metrics (draws, metrics)."""
    total, number = (
        scores.pivot_table(index="context", columns="metric", values="value", aggfunc=aggregate).fillna(0.0)
        for aggregate in ("sum", "count")
    )
    total = total.reindex(columns=number.columns, fill_value=0.0)

    def means(times: Array) -> pd.DataFrame:
        n = times @ number.to_numpy(dtype=np.float64)
        sums = times @ total.to_numpy(dtype=np.float64)
        mean = np.divide(sums, n, out=np.full_like(sums, np.nan), where=n > 0)
        return _with_ratios(pd.DataFrame(mean, columns=list(number.columns)))

    return means


def summarise(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean of each metric over folds and seeds, methods in rows; `energy` and `mmd` are ratios of sums.

    Parameters
    ----------
    scores
        Tidy table of `evaluate`.

    Returns
    -------
    Methods x metrics. Scores that are not defined (NaN) are left out of the mean, for all methods alike.
    """
    order = list(dict.fromkeys(scores["metric"]))
    methods = list(dict.fromkeys(scores["method"]))
    wide = scores.pivot_table(index="method", columns="metric", values="value", aggfunc="mean").loc[methods, order]
    return _with_ratios(wide).rename_axis(columns=None)


def paired_differences(
    scores: pd.DataFrame, method: str, baseline: str, rng: Generator, *, n_bootstrap: int = 1000
) -> pd.DataFrame:
    """Difference of two methods on the same groups, with a 95 % interval from a bootstrap of contexts.

    Parameters
    ----------
    scores
        Tidy table of `evaluate`.
    method, baseline
        Names; the difference is `method` minus `baseline`.
    rng
        Draws contexts with replacement; all groups and seeds of a context stay together.
    n_bootstrap
        Number of draws.

    Returns
    -------
    One row per metric: difference, low, high. Distances are ratios of sums in each draw; discrimination over all
    contexts has no row. With five contexts the interval is rough.

    Raises
    ------
    UnknownConditionError
        If a method is not in the table.
    DataError
        If there is only one context.
    """
    for name in (method, baseline):
        if name not in set(scores["method"]):
            raise UnknownConditionError(
                f"No scores of '{name}'; there are: {', '.join(sorted(set(scores['method'])))}."
            )
    single = scores[(scores["context"] != ALL_GROUPS) & (scores["condition"] != ALL_GROUPS)]
    of_method, of_baseline = (_means_of_draws(single[single["method"] == name]) for name in (method, baseline))
    contexts = single.loc[single["method"] == method, "context"].nunique()
    if contexts < 2:
        raise DataError("There is one context: an interval over contexts needs at least two.")
    everything = np.ones((1, contexts))
    drawn = rng.multinomial(contexts, np.full(contexts, 1 / contexts), size=n_bootstrap).astype(np.float64)
    difference, draws = (of_method(times) - of_baseline(times) for times in (everything, drawn))
    low, high = np.nanquantile(draws, [0.025, 0.975], axis=0)
    return pd.DataFrame({"difference": difference.iloc[0], "low": low, "high": high})
