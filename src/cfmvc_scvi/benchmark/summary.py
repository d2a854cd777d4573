"""Tables over folds and seeds, and what one method gains over another with an interval that respects groups."""

from __future__ import annotations

__all__ = ["losses", "mean_rank", "paired_differences", "seed_spread", "skills", "summarise"]

from collections.abc import Callable
from typing import Literal

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import NDArray

from cfmvc_scvi._keys import METRICS
from cfmvc_scvi.benchmark.baselines import FLOOR
from cfmvc_scvi.benchmark.cells import ALL_GROUPS
from cfmvc_scvi.benchmark.score import CEILING
from cfmvc_scvi.errors import DataError, UnknownConditionError

Array = NDArray[np.float64]
Cluster = Literal["context", "condition"]

_RATIOS = {
    "energy": ("energy_distance", "energy_scale"),
    "mmd": ("mmd_distance", "mmd_scale"),
    "expr_mse_unbiased_capped_norm": ("expr_mse_unbiased_capped", "expr_distance_unbiased"),  # of the challenge
}
_NO_ROOM = 1e-6  # floor and ceiling closer than this leave no skill to show


def _with_ratios(means: pd.DataFrame) -> pd.DataFrame:
    """Means of metrics, in columns, with the parts of a normalised distance replaced by their ratio."""
    for name, (distance, scale) in _RATIOS.items():
        if distance in means:
            means.insert(list(means.columns).index(distance), name, means[distance] / means[scale])
            means = means.drop(columns=[distance, scale])
    return means


def _means_of_draws(scores: pd.DataFrame, cluster: Cluster) -> Callable[[Array], pd.DataFrame]:
    """Function from how often each cluster is drawn (draws, clusters) to the means of all metrics (draws, metrics)."""
    total, number = (
        scores.pivot_table(index=cluster, columns="metric", values="value", aggfunc=aggregate).fillna(0.0)
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
    wide = scores.pivot_table(index="method", columns="metric", values="value", aggfunc="mean")
    return _with_ratios(wide.reindex(index=methods, columns=order)).rename_axis(columns=None)


def losses(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores with the magnitude in place of the value where zero is best, so that errors of two signs do not cancel.

    Parameters, columns
    -------------------
    Those of the tidy table of `evaluate`.
    """
    zero = [name for name, metric in METRICS.items() if metric.best == "zero"]
    value = scores["value"].where(~scores["metric"].isin(zero), scores["value"].abs())
    return scores.assign(value=value)


def seed_spread(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds of what `summarise` gives for each seed.

    Parameters
    ----------
    scores
        Tidy table of `evaluate`.

    Returns
    -------
    Columns method, metric, mean, sd (NaN with one seed), in the order of the table.
    """
    by_seed = [summarise(part).stack(future_stack=True) for _, part in scores.groupby("seed")]
    wide = pd.concat(by_seed, axis=1)
    table = pd.DataFrame({"mean": wide.mean(axis=1), "sd": wide.std(axis=1, ddof=1)})
    return table.rename_axis(["method", "metric"]).reset_index()


def skills(summary: pd.DataFrame, *, floor: str = FLOOR, ceiling: str = CEILING) -> pd.DataFrame:
    """How far each method gets from the floor (0) to the ceiling (1) in each primary metric.

    (score - floor) / (ceiling - floor); of distances these are ratios of sums over groups. Where zero is best,
    magnitudes take the place of scores.

    Parameters
    ----------
    summary
        Methods x metrics, as of `summarise`; of `losses` where signs must not cancel.
    floor, ceiling
        Rows.

    Returns
    -------
    Methods x primary metrics, without floor and ceiling; NaN where the ceiling is no better than the floor.

    Raises
    ------
    UnknownConditionError
        If a row is missing.
    """
    _known([floor, ceiling], summary.index)
    found = {}
    for name in (name for name in METRICS if name in summary):
        loss = _badness(name, summary[name])
        room = loss[floor] - loss[ceiling]
        found[name] = (loss[floor] - loss) / (room if room > _NO_ROOM else np.nan)
    return pd.DataFrame(found, index=summary.index).drop(index=[floor, ceiling])


def mean_rank(summary: pd.DataFrame, *, ceiling: str = CEILING) -> pd.Series:
    """Mean over the primary metrics of the rank of each method, 1 the best, ties shared; best method first.

    Parameters
    ----------
    summary
        Methods x metrics, as of `summarise`.
    ceiling
        Row that is not ranked.
    """
    methods = summary.drop(index=ceiling, errors="ignore")
    ranks = {name: _badness(name, methods[name]).rank() for name in METRICS if name in methods}
    return pd.DataFrame(ranks).mean(axis=1).sort_values(kind="stable").rename("mean_rank")


def paired_differences(
    scores: pd.DataFrame,
    method: str,
    baseline: str,
    rng: Generator,
    *,
    n_bootstrap: int = 1000,
    cluster: Cluster = "context",
) -> pd.DataFrame:
    """Difference of two methods on the same groups, with a 95 % interval from a bootstrap of contexts.

    Parameters
    ----------
    scores
        Tidy table of `evaluate`.
    method, baseline
        Names; the difference is `method` minus `baseline`.
    rng
        Draws clusters with replacement; all groups and seeds of a cluster stay together.
    n_bootstrap
        Number of draws.
    cluster
        What is drawn: contexts, or conditions where those are many and contexts few.

    Returns
    -------
    One row per metric: difference, low, high; NaN where one of the two has no value. Distances are ratios of sums in
    each draw; discrimination over all contexts has no row. With five clusters the interval is rough.

    Raises
    ------
    UnknownConditionError
        If a method is not in the table.
    DataError
        If there is only one cluster, or the methods were scored on different groups.
    """
    _known([method, baseline], list(dict.fromkeys(scores["method"])))
    single = scores[(scores["context"] != ALL_GROUPS) & (scores["condition"] != ALL_GROUPS)]
    parts = [single[single["method"] == name] for name in (method, baseline)]
    groups = [set(map(tuple, part[["condition", "context", "seed"]].to_numpy())) for part in parts]
    if groups[0] != groups[1]:
        raise DataError(f"'{method}' and '{baseline}' were not scored on the same groups and seeds.")
    n_clusters = parts[0][cluster].nunique()
    if n_clusters < 2:
        raise DataError(f"There is one {cluster}: an interval over {cluster}s needs at least two.")
    of_method, of_baseline = (_means_of_draws(part, cluster) for part in parts)
    everything = np.ones((1, n_clusters))
    drawn = rng.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=n_bootstrap).astype(np.float64)
    difference, draws = (of_method(times) - of_baseline(times) for times in (everything, drawn))
    low, high = (draws.quantile(level) for level in (0.025, 0.975))
    return pd.DataFrame({"difference": difference.iloc[0], "low": low, "high": high})


def _badness(metric: str, values: pd.Series) -> pd.Series:
    """The lower, the better."""
    return {"high": -values, "low": values, "zero": values.abs()}[METRICS[metric].best]


def _known(wanted: list[str], names: pd.Index | list[str]) -> None:
    for name in wanted:
        if name not in names:
            raise UnknownConditionError(f"No scores of '{name}'; there are: {', '.join(sorted(map(str, names)))}.")
