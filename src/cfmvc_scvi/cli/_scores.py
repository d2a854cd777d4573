"""The baselines that the command line compares with, and the table it shows."""

from __future__ import annotations

__all__ = ["MODEL", "PredictorProgress", "baselines", "comparison", "score_table", "verdict"]

from collections.abc import Mapping

import pandas as pd
from anndata import AnnData
from rich.box import SIMPLE
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from cfmvc_scvi import benchmark as bm
from cfmvc_scvi.pl import METRICS

MODEL = "CFMVC"
FLOOR = "no change"
_BASELINES = {
    FLOOR: bm.NoChange,
    "mean shift": bm.MeanShift,
    "nearest shift": bm.NearestContextShift,
    "fold-change resampling": bm.FoldChangeResampling,
    "pooled others": bm.PooledOtherContexts,
    "count-coupled nearest": bm.CountCoupledNearestShift,
}


def baselines(perturbation_key: str, context_key: str, control: str) -> dict[str, bm.Predictor]:
    """Simple predictors by name, for the columns of obs given."""
    columns = bm.Columns(perturbation_key, context_key, control)
    return {name: bm.baseline_predictor(baseline, columns) for name, baseline in _BASELINES.items()}


class PredictorProgress:
    """Moves a bar with each prediction of a benchmark.

    Parameters
    ----------
    progress
        Where the bar is drawn.
    predictors
        What is compared.
    n_runs
        Number of folds times number of seeds.
    """

    def __init__(self, progress: Progress, predictors: Mapping[str, bm.Predictor], n_runs: int) -> None:
        self._progress, self._predictors = progress, predictors
        self._task = progress.add_task("comparing", total=n_runs * len(predictors))

    def predictors(self) -> dict[str, bm.Predictor]:
        """The predictors, each of which moves the bar."""
        return {name: self._moving(name, predictor) for name, predictor in self._predictors.items()}

    def _moving(self, name: str, predictor: bm.Predictor) -> bm.Predictor:
        def predict(train: AnnData, query: AnnData, fold: bm.Fold, seed: int) -> bm.Prediction:
            self._progress.update(self._task, description=f"{name}: {fold.condition}, {fold.context}")
            prediction = predictor(train, query, fold, seed)
            self._progress.advance(self._task)
            return prediction

        return predict


def comparison(summary: pd.DataFrame) -> pd.DataFrame:
    """The model against the best simple baseline in each primary metric.

    Parameters
    ----------
    summary
        Methods x metrics, as of `benchmark.summarise`.

    Returns
    -------
    One row per metric: model, best (its score), by (its name), floor, ceiling, wins.
    """
    simple = [name for name in summary.index if name in _BASELINES]
    rows = {}
    for name, metric in METRICS.items():
        badness = {"high": -summary[name], "low": summary[name], "zero": summary[name].abs()}[metric.best]
        best = badness[simple].idxmin()
        scores = {"model": MODEL, "best": best, "floor": FLOOR, "ceiling": bm.CEILING}
        rows[name] = {column: summary.loc[method, name] for column, method in scores.items()}
        rows[name] |= {"by": best, "wins": bool(badness[MODEL] < badness[best])}
    return pd.DataFrame.from_dict(rows, orient="index")


def score_table(compared: pd.DataFrame, title: str) -> Table:
    """The comparison as a table for the terminal, 80 columns wide."""
    caption = "↑ higher, ↓ lower, →0 zero is best. Ceiling: real cells predict real cells."
    table = Table(title=title, caption=caption, box=SIMPLE, pad_edge=False, collapse_padding=True)
    table.title_justify = table.caption_justify = "left"
    table.add_column("metric", no_wrap=True)
    for name in (MODEL, "best simple", FLOOR, "ceiling"):
        table.add_column(name, justify="right", min_width=6)
    table.add_column("won")
    table.add_column("best simple baseline", min_width=13)
    arrows = {"high": "↑", "low": "↓", "zero": "→0"}
    for name, row in compared.iterrows():
        metric = METRICS[str(name)]
        score, best, floor, ceiling = (f"{row[column]:.3f}" for column in ("model", "best", "floor", "ceiling"))
        wins = Text("yes", style="green") if row["wins"] else Text("no", style="red")
        table.add_row(f"{metric.label} {arrows[metric.best]}", score, best, floor, ceiling, wins, row["by"])
    return table


def verdict(compared: pd.DataFrame) -> str:
    """Say in words whether the model beats the best simple baseline, and on which metrics it does not."""
    n_wins, n_metrics = int(compared["wins"].sum()), len(compared)
    lost = [METRICS[str(name)].label for name in compared.index[~compared["wins"]]]
    if not lost:
        return f"{MODEL} beats the best simple baseline on all {n_metrics} metrics."
    if n_wins == 0:
        return f"{MODEL} does not beat the best simple baseline on any of {n_metrics} metrics."
    return f"{MODEL} beats the best simple baseline on {n_wins} of {n_metrics} metrics; not on: {', '.join(lost)}."
