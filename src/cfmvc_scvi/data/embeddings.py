"""Features of perturbations: the check of a table that a user gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cfmvc_scvi.data._text import counted, listing
from cfmvc_scvi.data.vocabulary import Vocabulary
from cfmvc_scvi.errors import DataError, NonFiniteError

__all__ = ["check_embeddings"]


def check_embeddings(values: Any, key: str, vocabulary: Vocabulary) -> pd.DataFrame:
    """Return features of single perturbations as float64, in the order given.

    Parameters
    ----------
    values
        DataFrame, single perturbations in rows and features in columns; a row of NaN is a perturbation of which nothing
        is known.
    key
        Where it stands, for messages.
    vocabulary
        Perturbations with cells, the control and the separator.

    Raises
    ------
    DataError
        If it is no table of numbers, a name occurs twice, is empty, the control or a combination, or no perturbation
        with cells has features.
    NonFiniteError
        If a row is finite only in part.
    """
    where = f"uns[{key!r}]"
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
