"""Doses of the parts of a condition, from numbers or from texts such as '0.5+1'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["part_doses"]


def part_doses(
    doses: float | str | Sequence[Any] | NDArray[Any] | pd.Series, n_parts: NDArray[np.intp], separator: str
) -> NDArray[np.float64]:
    """Return the dose of each part of each cell's condition.

    One number applies to all parts of a condition; a text with as many numbers as the condition has parts gives each
    its own, in the order in which the parts are written. What cannot be understood becomes NaN, for the caller to
    judge: a control cell may have no dose.

    Parameters
    ----------
    doses
        One entry per cell, or one for all cells; in the unit of the data.
    n_parts
        Number of parts of each cell's condition as written, shape (cells,).
    separator
        What stands between the numbers of a text.

    Returns
    -------
    Doses, shape (cells, largest number of parts).
    """
    n_cells, width = len(n_parts), int(n_parts.max(initial=1))
    if isinstance(doses, pd.Series):
        entries = doses.astype(object).to_numpy()
    elif isinstance(doses, str) or np.ndim(doses) == 0:
        entries = np.full(n_cells, doses, dtype=object)
    else:
        entries = np.asarray(doses, dtype=object)
    numbers = pd.to_numeric(pd.Series(entries, dtype=object), errors="coerce").to_numpy(
        dtype=np.float64, na_value=np.nan
    )
    parts = np.repeat(numbers[:, None], width, axis=1)
    # texts with several numbers are few and repeat: each distinct one is read once
    is_text = np.isnan(numbers) & np.array(
        [isinstance(entry, str) and separator in entry for entry in entries], dtype=bool
    )
    text_cells = np.flatnonzero(is_text)
    codes, texts = pd.factorize(entries[is_text])
    for code, text in enumerate(texts):
        values = pd.to_numeric(pd.Series(text.split(separator)), errors="coerce").to_numpy(dtype=np.float64)
        cells = text_cells[codes == code]
        if len(values) <= width:
            parts[cells[n_parts[cells] == len(values)], : len(values)] = values
    return parts
