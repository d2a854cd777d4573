"""What a benchmark run left behind, read back for its report."""

from __future__ import annotations

__all__ = ["HeldOut", "Run", "read_run"]

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from cfmvc_scvi.benchmark.calibration import coverage_table, trust_table
from cfmvc_scvi.benchmark.cells import ALL_GROUPS, Prediction
from cfmvc_scvi.benchmark.fold import Columns, group_labels, slug
from cfmvc_scvi.benchmark.store import PredictionStore, data_fingerprint, read_prediction
from cfmvc_scvi.errors import DataError

_GROUP = ["condition", "context"]
_ASKED = ("holdout", "columns", "setup", "folds", "fingerprint", "versions")


@dataclass(frozen=True)
class HeldOut:
    """A held-out (condition, context).

    Parameters
    ----------
    id
        Of its fold.
    control, true
        Control cells of the context, and the cells that were held out, (cells,) boolean.
    """

    id: str
    control: NDArray[np.bool_]
    true: NDArray[np.bool_]


@dataclass(frozen=True)
class Run:
    """A finished benchmark run and the data it was made with.

    Parameters
    ----------
    store
        Its directory.
    asked
        Contents of run.json.
    scores
        Tidy scores: method, condition, context, seed, metric, value.
    groups
        What was held out, by (condition, context).
    """

    store: PredictionStore
    asked: Mapping[str, Any]
    scores: pd.DataFrame
    groups: Mapping[tuple[str, str], HeldOut]

    @property
    def sizes(self) -> pd.DataFrame:
        """Numbers of control and true cells by (condition, context)."""
        rows = [{"control": int(group.control.sum()), "true": int(group.true.sum())} for group in self.groups.values()]
        return pd.DataFrame(rows, index=pd.MultiIndex.from_tuples(self.groups, names=_GROUP))

    def prediction(self, method: str, group: tuple[str, str], seed: int, genes: Iterable[str]) -> Prediction | None:
        """Predicted cells; None if the store has none of this method, group and seed."""
        path = self.store.directory / "predictions" / slug(method) / f"{self.groups[group].id}-seed{seed}.h5ad"
        return read_prediction(path, genes) if path.exists() else None

    @property
    def single(self) -> pd.DataFrame:
        """Scores of single held-out groups."""
        return self.scores[(self.scores["context"] != ALL_GROUPS) & (self.scores["condition"] != ALL_GROUPS)]

    def calibration_of(self, model: str) -> pd.DataFrame | None:
        """Coverage of the intervals of a model, nominal and observed; None if it states none."""
        table = coverage_table(self.scores[self.scores["method"] == model])
        return table if len(table) else None

    def trust_of(self, model: str) -> pd.DataFrame | None:
        """Trust score and error by condition and context, means over seeds; None if there are none."""
        table = trust_table(self.scores[self.scores["method"] == model])
        return table.groupby(_GROUP, sort=False)[["trust", "error"]].mean() if len(table) else None


def read_run(directory: str | os.PathLike[str], adata: AnnData) -> Run:
    """Read a finished run, and find its held-out cells in the data.

    Raises
    ------
    DataError
        If there is no finished run, or the data are not those it was made with.
    """
    store = PredictionStore(directory)
    asked, scores = store.read_run(), store.read_scores()
    if absent := [name for name in _ASKED if name not in asked]:
        raise DataError(f"run.json of '{store.directory}' does not say: {', '.join(absent)}; run the benchmark anew.")
    columns = Columns(**asked["columns"])
    used = [name for name in (columns.perturbation_key, columns.context_key, columns.dose_key) if name is not None]
    fingerprint = data_fingerprint(adata, used)
    if fingerprint != asked["fingerprint"]:
        raise DataError(
            f"the data have the fingerprint {fingerprint}, the run in '{store.directory}' was made with "
            f"{asked['fingerprint']}; give the data of the run, unchanged."
        )
    condition, context = group_labels(adata, columns)
    scored = set(zip(scores["condition"], scores["context"], strict=True))
    groups = {}
    for fold in asked["folds"]:
        key = (fold["condition"], fold["context"])
        if key in scored:
            inside = context == key[1]
            groups[key] = HeldOut(fold["id"], inside & (condition == columns.control), inside & (condition == key[0]))
    return Run(store, asked, scores, groups)
