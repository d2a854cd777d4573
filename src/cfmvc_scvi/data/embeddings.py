"""Features of perturbations: where a user keeps them, and the check of what is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from cfmvc_scvi.data._text import counted, listing
from cfmvc_scvi.data.names import check_key
from cfmvc_scvi.data.vocabulary import Vocabulary
from cfmvc_scvi.errors import DataError, NonFiniteError

__all__ = ["check_embeddings", "find_embeddings"]


def find_embeddings(adata: Any, key: str, vocabulary: Vocabulary) -> pd.DataFrame:
    """Return features of single perturbations from the data, as `check_embeddings` does.

    Parameters
    ----------
    adata
        AnnData, with features in `uns` (a DataFrame, perturbations in rows, or a mapping of each to its features), or
        in `varm` (those of the genes that perturbations are named after; genes without features, whose rows are NaN,
        are left out).
    key
        Their key.
    vocabulary
        Perturbations with cells, the control and the separator.

    Raises
    ------
    UnknownConditionError
        If there is no such key.
    DataError
        If it is in both places, or in `obsm`, where perturbations without cells have no row; or as of
        `check_embeddings`.
    NonFiniteError
        As of `check_embeddings`.
    """
    known = [name for name in ("uns", "varm", "obsm") if key in getattr(adata, name)]
    if known == ["obsm"]:
        raise DataError(
            f"obsm[{key!r}] has a row for each cell, and perturbations without cells have none: put a table with "
            f"perturbations in rows into uns[{key!r}]"
        )
    if {"uns", "varm"} <= set(known):
        raise DataError(f"{key!r} is in both uns and varm; delete or rename one of them")
    if "varm" not in known:
        check_key(key, [*adata.uns.keys(), *adata.varm.keys()], "adata.uns or adata.varm")
        return check_embeddings(adata.uns[key], f"uns[{key!r}]", vocabulary)
    values = adata.varm[key]
    if not isinstance(values, pd.DataFrame):
        values = pd.DataFrame(values.toarray() if hasattr(values, "toarray") else np.asarray(values), adata.var_names)
    described = values.notna().any(axis=1) & (values.index != vocabulary.control)
    return check_embeddings(values[described], f"varm[{key!r}]", vocabulary)


def check_embeddings(values: Any, where: str, vocabulary: Vocabulary) -> pd.DataFrame:
    """Return features of single perturbations as float64, in the order given.

    Parameters
    ----------
    values
        DataFrame, single perturbations in rows and features in columns, or a mapping of each to its features; NaN alone
        is a perturbation of which nothing is known.
    where
        Where they stand, for messages.
    vocabulary
        Perturbations with cells, the control and the separator.

    Raises
    ------
    DataError
        If they are no table of numbers, a name occurs twice, is empty, the control or a combination, or no perturbation
        with cells has features.
    NonFiniteError
        If a row is finite only in part.
    """
    if isinstance(values, Mapping):
        values = _as_table(values, where)
    if not isinstance(values, pd.DataFrame):
        raise DataError(
            f"{where} is a {type(values).__name__}; pass a DataFrame with perturbations in rows and features in columns"
        )
    if not values.shape[1]:
        raise DataError(f"{where} has no columns; give at least one feature, or leave perturbation_embeddings_key out")
    other = [str(name) for name, dtype in values.dtypes.items() if dtype.kind not in "biuf"]
    if other:
        raise DataError(
            f"{where} has {counted(len(other), 'column')} that are not numbers: {listing(other)}; drop them"
        )
    frame = values.astype(np.float64).set_axis([str(name) for name in values.index], axis=0)
    repeated = sorted(set(frame.index[frame.index.duplicated()]))
    if repeated:
        raise DataError(f"{where} names {listing(repeated)} twice; give each perturbation one row")
    wrong = [name for name in frame.index if name == vocabulary.control or vocabulary.separator in name]
    if wrong:
        raise DataError(
            f"{where} has rows for {listing(wrong)}; leave out the control and combinations, whose features are those "
            "of their parts"
        )
    finite = np.isfinite(frame.to_numpy())
    partly = frame.index[(finite.any(axis=1) & ~finite.all(axis=1)) | np.isinf(frame.to_numpy()).any(axis=1)]
    if len(partly):
        raise NonFiniteError(
            f"{where} has {counted(len(partly), 'row')} that are finite only in part: {listing(partly)}. Fill them in, "
            "or make the whole row NaN if nothing is known of the perturbation"
        )
    if not finite[frame.index.isin(vocabulary.perturbations)].any():
        raise DataError(
            f"{where} has no features of any perturbation with cells, so nothing can be learned from it. Its rows: "
            f"{listing(frame.index)}. Perturbations with cells: {listing(vocabulary.perturbations)}. Name the rows "
            "like the labels"
        )
    return frame


def _as_table(values: Mapping[Any, Any], where: str) -> pd.DataFrame:
    """Return the features of each perturbation as rows."""
    rows = {name: np.asarray(row).reshape(-1) for name, row in values.items()}
    unknown = [name for name, row in rows.items() if len(row) == 1 and pd.isna(row[0])]
    most_features = max(map(len, rows.values()), default=0)
    rows |= {name: np.full(most_features, np.nan) for name in unknown}
    lengths = {name: len(row) for name, row in rows.items()}
    if len(set(lengths.values())) > 1:
        least, most = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
        raise DataError(
            f"{where} has {lengths[least]} features of {least!r} and {lengths[most]} of {most!r}; give each "
            "perturbation as many"
        )
    return pd.DataFrame.from_dict(rows, orient="index")
