"""Wording of messages: listings, close matches, and labels as text."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cfmvc_scvi.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["closest", "counted", "did_you_mean", "distinct", "label_strings", "listing"]


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the most similar of the known names (case does not count), or None when none is similar.

    Parameters
    ----------
    name
        The name that was not found.
    known
        The names that exist.
    """
    by_folded = {other.casefold(): other for other in known}
    match = get_close_matches(name.casefold(), by_folded, n=1)
    return by_folded[match[0]] if match else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the closest known name, or an empty string.

    Parameters
    ----------
    name
        The name that was not found.
    known
        The names that exist.
    """
    match = closest(name, known)
    return "" if match is None else f" Did you mean {match!r}?"


def listing(names: Collection[Any], limit: int = 5) -> str:
    """Return the first names, comma separated, and how many there are in all when some are left out.

    Parameters
    ----------
    names
        What to list.
    limit
        Number of names shown.
    """
    shown = ", ".join(str(name) for name, _ in zip(names, range(limit), strict=False))
    if not shown:
        return "none"
    return shown if len(names) <= limit else f"{shown}, ... ({len(names)} in all)"


def counted(n: int, noun: str) -> str:
    """Return ``"1 cell"`` or ``"3 cells"``.

    Parameters
    ----------
    n
        How many.
    noun
        Singular of a noun with a regular plural.
    """
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def label_strings(labels: Sequence[Any] | NDArray[Any] | pd.Series) -> NDArray[np.object_]:
    """Return labels of any dtype as stripped strings.

    Parameters
    ----------
    labels
        One label per cell: strings, categories, numbers or booleans.

    Returns
    -------
    Array of `str`, shape (cells,), of dtype object (fixed-width numpy strings drop trailing null characters).

    Raises
    ------
    DataError
        If a label is missing (None, NaN, NA).
    """
    codes, unique = distinct(labels)
    if (codes < 0).any():
        raise DataError(f"{counted(int((codes < 0).sum()), 'label')} missing (None or NaN); give every cell a label")
    names = np.array([str(name).strip() for name in unique], dtype=object)
    return names[codes]


def distinct(values: Any) -> tuple[NDArray[np.intp], list[Any]]:
    """Return the distinct values in the order of their first appearance, and which one each entry has.

    Parameters
    ----------
    values
        A sequence, or anything of pandas that has `factorize`: the fastest way, which only callers with pandas take.

    Returns
    -------
    codes
        Shape (entries,); -1 where the value is missing (None, NaN, NA).
    values
        The distinct values.
    """
    if hasattr(values, "factorize"):
        codes, unique = values.factorize()
        return np.asarray(codes, dtype=np.intp), list(unique)
    found: dict[Any, int] = {}
    codes = (-1 if _is_missing(value) else found.setdefault(value, len(found)) for value in values)
    return np.fromiter(codes, np.intp, count=len(values)), list(found)


def _is_missing(value: Any) -> bool:
    if value is None:
        return True
    try:
        return bool(value != value)
    except TypeError:  # pandas.NA, which equals nothing, not even itself
        return True
