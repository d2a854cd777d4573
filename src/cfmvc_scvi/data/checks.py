"""Checks of labels, control groups, embeddings and names, with messages that name the offender and the remedy."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from cfmvc_scvi.data._text import counted, did_you_mean, label_strings, listing
from cfmvc_scvi.data.names import check_key
from cfmvc_scvi.errors import CFMVCWarning, DataError

__all__ = ["check_control", "check_labels", "check_min_cells", "check_obsm"]

logger = logging.getLogger(__name__)


def check_labels(obs: pd.DataFrame, key: str, what: str) -> pd.Series:
    """Check a column of labels and return it as strings; the column itself is left as it is.

    Parameters
    ----------
    obs
        Annotation of the cells.
    key
        Column with one label per cell: text, categories, integers or booleans.
    what
        What the labels are, for the messages, for example ``"perturbation"``.

    Returns
    -------
    Labels as stripped strings, indexed like `obs`.

    Raises
    ------
    UnknownConditionError
        If there is no such column.
    DataError
        If cells have no label, or the labels are of several types.
    """
    check_key(key, obs.columns, "adata.obs")
    column = obs[key]
    missing = column.isna().to_numpy()
    if missing.any():
        raise DataError(
            f"{counted(int(missing.sum()), 'cell')} {'has' if missing.sum() == 1 else 'have'} no value in obs[{key!r}] "
            f"({what}): {listing(obs.index[missing])}; label or remove them"
        )
    values = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else column
    if pd.api.types.infer_dtype(values).startswith("mixed"):
        types = sorted({type(value).__name__ for value in values})
        if len(types) > 1:
            raise DataError(
                f"obs[{key!r}] ({what}) mixes {' and '.join(types)}; convert it to one type, for example str"
            )
    if isinstance(column.dtype, pd.CategoricalDtype):
        unused = column.cat.categories.difference(column.cat.remove_unused_categories().cat.categories, sort=False)
        if len(unused):
            logger.info("ignored %s of obs[%r] without a cell: %s", _categories(len(unused)), key, listing(unused))
    return pd.Series(label_strings(column), index=obs.index, name=key, dtype=object)


def check_control(
    labels: Sequence[str] | NDArray[Any] | pd.Series,
    control: str,
    groups: Sequence[Any] | NDArray[Any] | pd.Series | None = None,
) -> None:
    """Check that there are control cells, in every group if groups are given.

    Parameters
    ----------
    labels
        Condition of each cell, combinations in canonical form.
    control
        Label of unperturbed cells.
    groups
        Context of each cell, by name.

    Raises
    ------
    DataError
        If no cell is a control.

    Warns
    -----
    CFMVCWarning
        If a group has no control cell: an effect cannot be learned there, and prediction needs a reference.
    """
    texts = label_strings(labels)
    is_control = texts == control
    if not is_control.any():
        known = sorted(set(texts))
        raise DataError(
            f"no cell has the control label {control!r}; the labels are: {listing(known, 10)}. Pass the label of the "
            f"unperturbed cells as the control.{did_you_mean(control, known)}"
        )
    if groups is None:
        return
    names = label_strings(groups)
    without = sorted(set(names) - set(names[is_control]))
    if without:
        warnings.warn(
            f"{counted(len(without), 'context')} without a control cell: {listing(without, 10)}; no effect is learned "
            "there, and nothing can be predicted for it: add its control cells",
            CFMVCWarning,
            stacklevel=2,
        )


def check_min_cells(
    labels: Sequence[str] | NDArray[Any] | pd.Series, min_cells: int, what: str = "perturbation"
) -> tuple[str, ...]:
    """Warn of labels with few cells.

    Parameters
    ----------
    labels
        One label per cell.
    min_cells
        Number of cells from which on a label is trusted.
    what
        What the labels are, for the message.

    Returns
    -------
    Labels with fewer cells, sorted.

    Warns
    -----
    CFMVCWarning
        If there are such labels; it names them.
    """
    counts = pd.Series(label_strings(labels), dtype=object).value_counts().sort_index()
    few = counts[counts < min_cells]
    if len(few):
        shown = [f"{name} ({counted(int(n), 'cell')})" for name, n in few.items()]
        warnings.warn(
            f"{counted(len(few), what)} with fewer than {min_cells} cells: {listing(shown, 10)}; their effects are "
            "uncertain: add cells, pool them or leave them out",
            CFMVCWarning,
            stacklevel=2,
        )
    return tuple(few.index)


def check_obsm(adata: AnnData, key: str, width: int | None = None) -> None:
    """Check an embedding or coordinates in `obsm`.

    Parameters
    ----------
    adata
        Annotated cells.
    key
        Key in `adata.obsm`; an array or a data frame of shape (cells, width).
    width
        Number of columns that the model expects.

    Raises
    ------
    UnknownConditionError
        If there is no such key.
    DataError
        If it is not numeric, has another width, or cells with NaN or infinite values.
    """
    check_key(key, adata.obsm.keys(), "adata.obsm")
    raw = adata.obsm[key]
    values = raw.toarray() if hasattr(raw, "toarray") else np.asarray(raw)
    if values.dtype.kind not in "biuf":
        raise DataError(f"obsm[{key!r}] has dtype {values.dtype}; give it numeric columns")
    if width is not None and values.shape[1] != width:
        raise DataError(
            f"obsm[{key!r}] has {counted(values.shape[1], 'column')}; expected {width} as in the data of the setup"
        )
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise DataError(
            f"obsm[{key!r}] has NaN or infinite values in {counted(int(bad.sum()), 'cell')}: "
            f"{listing(adata.obs_names[bad])}; fill in or remove these cells"
        )


def _categories(n: int) -> str:
    return "1 category" if n == 1 else f"{n} categories"
