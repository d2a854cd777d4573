"""Whether a model beats the best simple baseline, metric by metric and in one sentence."""

from __future__ import annotations

__all__ = ["compare", "verdict"]

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cfmvc_scvi._keys import METRICS
from cfmvc_scvi.benchmark.baselines import BASELINES, FLOOR, LATENT_ARITHMETIC
from cfmvc_scvi.benchmark.cells import ALL_GROUPS
from cfmvc_scvi.benchmark.score import CEILING
from cfmvc_scvi.benchmark.summary import Cluster, losses, paired_differences, skills, summarise
from cfmvc_scvi.errors import UnknownConditionError

_SEED = 0  # of the bootstrap: the same scores give the same intervals
_EQUAL = 1e-9
_OVER_GROUPS = ("context_discrimination", "perturbation_discrimination")  # one value for many groups


def compare(
    scores: pd.DataFrame,
    model: str = "CFMVC",
    baselines: Sequence[str] | None = None,
    *,
    floor: str = FLOOR,
    ceiling: str = CEILING,
    cluster: Cluster | None = None,
) -> pd.DataFrame:
    """Compare a model with the best simple baseline of each primary metric.

    The best baseline is chosen for each metric by the very scores it is compared on, which favours the baseline.

    Parameters
    ----------
    scores
        Tidy table of `evaluate`.
    model
        Name of a method.
    baselines
        Names of methods; None: those of `BASELINES` and latent arithmetic that are in the table.
    floor, ceiling
        Names of methods.
    cluster
        What the bootstrap draws (see `paired_differences`); None: contexts or conditions, whichever are more.

    Returns
    -------
    One row per primary metric that is defined: ``model``, ``best`` (score of the best baseline), ``by`` (its name),
    ``floor``, ``ceiling``, ``skill``, ``difference`` (model minus best) with ``low`` and ``high`` (95 %; NaN where
    there is one cluster, and for discrimination, which has one value for all groups), and ``outcome``: ``"win"``,
    ``"tie"`` where the interval holds zero, or ``"lose"``; without an interval, by the sign of the difference. Where
    zero is best, all are of magnitudes.

    Raises
    ------
    UnknownConditionError
        If a method is not in the table, or no baseline is.
    """
    table = losses(scores)
    summary = summarise(table)
    simple = [name for name in baselines or (*BASELINES, LATENT_ARITHMETIC) if name in summary.index and name != model]
    missing = [name for name in (model, floor, *(baselines or ())) if name not in summary.index]
    if missing or not simple:
        what = f"No scores of '{missing[0]}'" if missing else "No scores of a simple baseline; name yours by baselines="
        raise UnknownConditionError(f"{what}; there are: {', '.join(map(str, summary.index))}.")
    skill = skills(summary, floor=floor, ceiling=ceiling) if ceiling in summary.index else None
    rows = {}
    for name in METRICS:
        if name not in summary or summary.loc[[model, *simple], name].isna().any():
            continue
        values = summary[name]
        by = str((values[simple].idxmax if METRICS[name].best == "high" else values[simple].idxmin)())
        rows[name] = {"model": values[model], "best": values[by], "by": by, "floor": values[floor]}
        rows[name]["ceiling"] = values.get(ceiling, np.nan)
        rows[name]["skill"] = np.nan if skill is None or model not in skill.index else skill.loc[model, name]
        rows[name] |= _difference(table, model, by, name, values[model] - values[by], cluster)
    return pd.DataFrame.from_dict(rows, orient="index")


def _difference(
    table: pd.DataFrame, model: str, by: str, metric: str, difference: float, cluster: Cluster | None
) -> dict[str, object]:
    single = table[(table["context"] != ALL_GROUPS) & (table["condition"] != ALL_GROUPS)]
    n_groups = single[["condition", "context"]].nunique()
    drawn_by: Cluster = cluster or ("condition" if n_groups["condition"] > n_groups["context"] else "context")
    low, high = np.nan, np.nan
    if n_groups[drawn_by] > 1 and metric not in _OVER_GROUPS:
        drawn = paired_differences(table, model, by, np.random.default_rng(_SEED), cluster=drawn_by)
        low, high = drawn.loc[metric, ["low", "high"]]
    sign = 1.0 if METRICS[metric].best == "high" else -1.0
    least, most = sorted((sign * low, sign * high)) if np.isfinite(low) else (sign * difference, sign * difference)
    outcome = "win" if least > _EQUAL else "lose" if most < -_EQUAL else "tie"
    return {"difference": difference, "low": low, "high": high, "outcome": outcome}


def verdict(compared: pd.DataFrame, model: str = "CFMVC") -> str:
    """Say in one sentence whether the model beats the best simple baseline, and on which metrics it does not.

    Parameters
    ----------
    compared
        As of `compare`.
    model
        What to call the model.
    """
    named = {
        outcome: [METRICS[str(name)].label for name in compared.index[compared["outcome"] == outcome]]
        for outcome in ("win", "tie", "lose")
    }
    n_wins, n_metrics = len(named["win"]), len(compared)
    if n_wins == n_metrics:
        return f"{model} beats the best simple baseline on all {n_metrics} metrics."
    not_won = {"no clear difference on": named["tie"], "worse on": named["lose"]}
    rest = "; ".join(f"{what}: {', '.join(labels)}" for what, labels in not_won.items() if labels).removesuffix(".")
    if n_wins == 0:
        return f"{model} does not beat the best simple baseline on any of {n_metrics} metrics; {rest}."
    return f"{model} beats the best simple baseline on {n_wins} of {n_metrics} metrics; {rest}."
