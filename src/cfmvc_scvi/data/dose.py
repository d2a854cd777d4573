"""Doses of the parts of a condition, from numbers or from texts such as '0.5+1'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cfmvc_scvi.data._text import distinct

if TYPE_CHECKING:
    import pandas as pd

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
    one_for_all = isinstance(doses, str) or np.ndim(doses) == 0
    entries = np.full(n_cells, doses, dtype=object) if one_for_all else np.asarray(doses, dtype=object)
    codes, values = distinct(entries)
    numbers = np.array([*map(_number, values), np.nan])[codes]  # missing has the code -1
    parts = np.repeat(numbers[:, None], width, axis=1)
    # texts with several numbers are few and repeat: each distinct one is read once
    is_text = np.isnan(numbers) & np.array(
        [isinstance(entry, str) and separator in entry for entry in entries], dtype=bool
    )
    text_cells = np.flatnonzero(is_text)
    codes, texts = distinct(entries[is_text])
    for code, text in enumerate(texts):
        of_parts = [_number(part) for part in text.split(separator)]
        cells = text_cells[codes == code]
        if len(of_parts) <= width:
            parts[cells[n_parts[cells] == len(of_parts)], : len(of_parts)] = of_parts
    return parts


def _number(entry: Any) -> float:
    try:
        return float(entry)
    except (TypeError, ValueError, OverflowError):
        return float("nan")
