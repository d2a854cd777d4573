"""What the page asks of a model, and what it shows of the answer."""

from __future__ import annotations

__all__ = ["Answer", "Choices", "Question", "answer", "choices", "h5ad_bytes"]

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from cfmvc_scvi import tl
from cfmvc_scvi._keys import COMBINATION_SEPARATOR
from cfmvc_scvi.data import check_labels
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.metrics import log_normalize
from cfmvc_scvi.model import CFMVC

_MOST_ON_MAP = 400  # cells of each role: a map in seconds


@dataclass(frozen=True)
class Choices:
    """What can be asked of a model about some data.

    Parameters
    ----------
    perturbations
        Names, without the control.
    labels, samples
        Values of these columns among control cells; empty where the model has no such column.
    doses
        Doses of the perturbed cells, ascending; empty where the model has none.
    """

    perturbations: tuple[str, ...]
    labels: tuple[str, ...]
    samples: tuple[str, ...]
    doses: tuple[float, ...]


@dataclass(frozen=True)
class Question:
    """Control cells, and what they are to be given.

    Parameters
    ----------
    perturbations
        One, or the parts of a combination.
    labels, sample
        Which cells; None where the model has no such column.
    dose
        Of each part; None where the model has none.
    n_cells
        At most as many cells.
    seed
        Draws cells and counts.
    """

    perturbations: tuple[str, ...]
    labels: str | None = None
    sample: str | None = None
    dose: float | None = None
    n_cells: int = 400
    seed: int = 0

    @property
    def condition(self) -> str:
        """Name of the perturbation or combination."""
        return COMBINATION_SEPARATOR.join(sorted(self.perturbations))


@dataclass(frozen=True)
class Answer:
    """Cells before and after, and what is known of the effect.

    Parameters
    ----------
    cells
        ``"control"`` and ``"predicted"``, and ``"true"`` where the data have such cells, with counts in X.
    joint
        All of them on one map, as of `tl.joint_umap`.
    effect
        Per gene, as of `CFMVC.get_effect`, of the context asked about.
    trust
        Row of `CFMVC.get_trust` of that context.
    """

    cells: dict[str, AnnData]
    joint: AnnData
    effect: pd.DataFrame
    trust: pd.Series

    def values(self, genes: list[str]) -> dict[str, NDArray[np.float64]]:
        """Log1p CP10k of some genes in the cells of each role, (cells, genes)."""
        columns = self.cells["control"].var_names.get_indexer(genes)
        return {role: log_normalize(cells.X)[:, columns] for role, cells in self.cells.items()}


def choices(model: CFMVC, adata: AnnData) -> Choices:
    """Say what can be asked of a model about some data.

    Raises
    ------
    DataError
        If the model has no perturbations, or the data no control cells.
    UnknownConditionError
        If the data lack a column of the model.
    """
    if model.vocabulary is None:
        raise DataError("the model was trained without perturbations, so it predicts none.")
    control = adata.obs[_condition(model, adata) == model.vocabulary.control]
    if len(control) == 0:
        raise DataError(f"no cell of the data is '{model.vocabulary.control}', from which a prediction would start.")
    dose_key = _key(model, "dose_key")
    doses = () if dose_key is None else np.unique(adata.obs[dose_key].to_numpy(dtype=float))
    return Choices(
        tuple(model.vocabulary.perturbations),
        _values(control, _key(model, "labels_key")),
        _values(control, _key(model, "sample_key")),
        tuple(float(dose) for dose in doses if dose > 0),
    )


def answer(model: CFMVC, adata: AnnData, question: Question) -> Answer:
    """Predict cells, lay them out beside the real ones, and say how far to rely on it.

    Raises
    ------
    DataError
        If no control cells are as asked for, or the question names no perturbation.
    UnknownConditionError
        If a perturbation or a context is unknown.
    """
    assert model.vocabulary is not None
    if not question.perturbations:
        raise DataError("no perturbation is chosen; choose one, or several for a combination.")
    condition, chosen = _condition(model, adata), np.ones(adata.n_obs, dtype=bool)
    for name, value in (("labels_key", question.labels), ("sample_key", question.sample)):
        key = _key(model, name)
        if key is not None and value is not None:
            chosen &= (adata.obs[key].astype(str) == value).to_numpy()
    rng = np.random.default_rng(question.seed)
    control = _some(adata, chosen & (condition == model.vocabulary.control), question.n_cells, rng)
    if control.n_obs < 2:
        raise DataError(f"{control.n_obs} control cells are as asked for; two or more are needed.")
    predicted = model.predict_counterfactual(
        control, perturbation=question.condition, dose=question.dose, seed=question.seed
    )
    cells = {"control": control, "predicted": predicted}
    real = chosen & (condition == question.condition)
    dose_key = _key(model, "dose_key")
    if dose_key is not None and question.dose is not None:
        real &= np.isclose(adata.obs[dose_key].to_numpy(dtype=float), question.dose)
    if real.sum() > 1:
        cells = {"control": control, "true": _some(adata, real, question.n_cells, rng), "predicted": predicted}
    context = str(predicted.obs["target_context"].iloc[0])
    effect = model.get_effect(question.condition, dose=question.dose)
    trust = model.get_trust(question.condition, dose=question.dose)
    return Answer(
        cells,
        tl.joint_umap(cells, n_cells=_MOST_ON_MAP, seed=question.seed),
        effect[effect["context"] == context].reset_index(drop=True),
        trust[trust["context"] == context].iloc[0],
    )


def h5ad_bytes(adata: AnnData) -> bytes:
    """Return the content of an h5ad file of some cells."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "cells.h5ad"
        adata.write_h5ad(path, compression="gzip")
        return path.read_bytes()


def _key(model: CFMVC, name: str) -> str | None:
    return model.registry["setup_args"].get(name)


def _condition(model: CFMVC, adata: AnnData) -> NDArray[np.str_]:
    """Condition of each cell, the parts of combinations in alphabetical order."""
    labels = check_labels(adata.obs, str(_key(model, "perturbation_key")), "perturbation").astype(str)
    names = {name: COMBINATION_SEPARATOR.join(sorted(name.split(COMBINATION_SEPARATOR))) for name in labels.unique()}
    return labels.map(names).to_numpy().astype(str)


def _values(obs: pd.DataFrame, key: str | None) -> tuple[str, ...]:
    return () if key is None else tuple(sorted(check_labels(obs, key, "group").astype(str).unique()))


def _some(adata: AnnData, mask: NDArray[np.bool_], n_cells: int, rng: np.random.Generator) -> AnnData:
    rows = np.flatnonzero(mask)
    return adata[np.sort(rng.permutation(rows)[:n_cells])].copy()
