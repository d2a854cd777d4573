"""Cells on their way into an exported model, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from cfmvc_scvi._keys import CFMVC_REGISTRY_KEYS
from cfmvc_scvi.data import (
    Vocabulary,
    check_counts,
    check_key,
    check_names,
    gene_positions,
    refuse_new_categories,
    take_genes,
)
from cfmvc_scvi.data._text import counted, distinct, listing
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.runtime.card import Card

__all__ = ["Cells", "Prediction", "Taken", "encoded"]

#: Counts `(cells, genes)` in the order of the model's genes, and codes of the columns that the networks read.
Taken: TypeAlias = tuple[sp.csr_matrix, dict[str, NDArray]]


@dataclass(frozen=True)
class Cells:
    """Cells with their counts and annotation, named as in an AnnData, which can stand in its place.

    Attributes
    ----------
    X
        `(cells, genes)` raw counts, dense or sparse.
    obs
        Columns of annotation, one value per cell: a mapping or a data frame.
    obs_names
        Names of the cells, which key the noise.
    var_names
        Names of the genes.
    layers
        Other matrices; predictions read none.

    Raises
    ------
    DataError
        If lengths do not fit.
    """

    X: Any
    obs: Mapping[str, Sequence[Any]]
    obs_names: Sequence[str]
    var_names: Sequence[str]
    layers: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        matrix = self.X if sp.issparse(self.X) else np.asarray(self.X)
        for name in ("obs_names", "var_names"):
            object.__setattr__(self, name, np.array([str(value) for value in getattr(self, name)], dtype=object))
        object.__setattr__(self, "X", matrix)
        expected = (len(self.obs_names), len(self.var_names))
        if matrix.shape != expected:
            raise DataError(f"the counts have shape {matrix.shape}; expected {expected}: names of cells and of genes")
        for column in self.obs.keys():
            if len(self.obs[column]) != expected[0]:
                raise DataError(f"obs[{column!r}] has {len(self.obs[column])} values for {expected[0]} cells")

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of cells and genes."""
        return len(self.obs_names), len(self.var_names)


@dataclass(frozen=True)
class Prediction:
    """Counterfactual cells, named as the AnnData that `CFMVC.predict_counterfactual` returns.

    Attributes
    ----------
    X
        `(cells, genes)`, float32: counts in CSR, expected counts dense; None where only latents were asked for.
    obs
        ``source_condition``, ``target_condition``, ``source_context``, ``target_context``; with several draws ``draw``.
    obs_names, var_names
        Names of the cells asked about, and the genes of the model.
    obsm
        ``X_cfmvc`` and ``X_cfmvc_counterfactual``, float32 intrinsic latents.
    uns
        ``cfmvc``: provenance.
    layers
        Of several perturbations, the matrix of each by its name, and X is None.
    """

    X: sp.csr_matrix | NDArray[np.float32] | None
    obs: dict[str, NDArray]
    obs_names: NDArray[np.object_]
    var_names: NDArray[np.object_]
    obsm: dict[str, NDArray[np.float32]]
    uns: dict[str, Any]
    layers: dict[str, sp.csr_matrix | NDArray[np.float32]] = field(default_factory=dict)

    @property
    def dense(self) -> NDArray:
        """X as an array; DataError where there is none."""
        if self.X is None:
            raise DataError("only latents were asked for, or several perturbations, which are in layers: there is no X")
        return np.asarray(self.X.toarray() if isinstance(self.X, sp.csr_matrix) else self.X)


def encoded(card: Card, cells: Any, pad_missing: bool) -> Taken:
    """Check cells, and return their counts in the order of the model's genes and the codes of their columns.

    Parameters
    ----------
    card
        Of the model.
    cells
        `Cells` or an AnnData.
    pad_missing
        Count genes of the model that the cells lack as zero.

    Raises
    ------
    DataError
        If counts, doses or covariates cannot be used, or genes or labels are missing.
    UnknownConditionError
        If a column or a category is unknown.
    """
    check_names(cells)
    check_counts(cells, training=False, allow_non_integer=card.allow_non_integer)
    matrix = cells.X
    if list(cells.var_names) != card.genes:
        matrix = take_genes(matrix, gene_positions([str(name) for name in cells.var_names], card.genes, pad_missing))
    for column in card.columns.required:
        check_key(column, cells.obs.keys(), "obs")
    return sp.csr_matrix(matrix, dtype=np.float32), _inputs(card, cells)


def _inputs(card: Card, cells: Any) -> dict[str, NDArray]:
    columns, keys = card.columns, CFMVC_REGISTRY_KEYS
    labels = _texts(cells, columns.perturbation)
    doses = None if columns.dose is None else np.asarray(cells.obs[columns.dose], dtype=object)
    result: dict[str, NDArray] = {
        keys.PERTURBATION_KEY: Vocabulary.from_dict(card.vocabulary).design(labels, doses),
        keys.BATCH_KEY: _codes(cells, columns.batch, card.batches),
        keys.LABELS_KEY: _codes(cells, columns.labels, card.labels),
    }
    if card.samples is not None:
        result[keys.SAMPLE_KEY] = _codes(cells, columns.sample, card.samples)
    if columns.categories:
        covariates = [_codes(cells, column, names) for column, names in columns.categories.items()]
        result[keys.CAT_COVS_KEY] = np.hstack(covariates)
    if columns.continuous:
        result[keys.CONT_COVS_KEY] = np.column_stack([_numbers(cells, column) for column in columns.continuous])
    return result


def _texts(cells: Any, column: str) -> list[str]:
    codes, values = distinct(cells.obs[column])
    missing = np.flatnonzero(codes < 0)
    if len(missing):
        names = [cells.obs_names[cell] for cell in missing]
        raise DataError(
            f"{counted(len(missing), 'cell')} without a value in obs[{column!r}]: {listing(names)}; label or remove "
            "them"
        )
    texts = [str(value).strip() for value in values]
    return [texts[code] for code in codes]


def _codes(cells: Any, column: str | None, names: Sequence[str]) -> NDArray[np.int64]:
    """Return the code of each cell's category, `(cells, 1)`; zero where the model has no such column."""
    if column is None:
        return np.zeros((len(cells.obs_names), 1), dtype=np.int64)
    texts, code_of = _texts(cells, column), {name: code for code, name in enumerate(names)}
    refuse_new_categories(column, sorted(set(texts) - set(code_of)), names)
    return np.array([[code_of[text]] for text in texts], dtype=np.int64).reshape(-1, 1)


def _numbers(cells: Any, column: str) -> NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
            values = np.asarray(cells.obs[column], dtype=np.float64).astype(np.float32)
    except (OverflowError, TypeError, ValueError) as error:
        raise DataError(f"obs[{column!r}] is a continuous covariate, but not all its values are numbers") from error
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        names = [cells.obs_names[cell] for cell in wrong]
        raise DataError(f"obs[{column!r}] is not finite in {counted(len(wrong), 'cell')}: {listing(names)}")
    return values
