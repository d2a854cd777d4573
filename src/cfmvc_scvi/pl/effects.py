"""Effects of perturbations in contexts on genes, and how alike they are, as heat maps."""

from __future__ import annotations

__all__ = ["effects", "similarity"]

import os

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import pdist, squareform

from cfmvc_scvi.errors import DataError, NonFiniteError, UnknownConditionError
from cfmvc_scvi.pl._labels import shorten
from cfmvc_scvi.pl._style import figure_of, finish, new_axes

_CMAP = "RdBu_r"
_MOST_NUMBERS = 12  # rows of a similarity map in whose cells numbers can be read


def effects(
    table: pd.DataFrame,
    n_genes: int = 20,
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Draw the effect on the genes that change most, one row for each perturbation in each context.

    Parameters
    ----------
    table
        One row per context and gene, with columns ``context``, ``gene``, ``delta``, as of `CFMVC.get_effect`; of
        several perturbations below each other, also ``perturbation``. Rows that were predicted (``observed`` false)
        have a circle beside them.
    n_genes
        Genes of largest absolute effect in any row; they stand in the order of their similarity.
    ax
        Axes to draw on; None makes a figure.
    show
        Show the figure now; None does so where matplotlib is interactive, unless axes are given.
    save
        File to save the figure to.

    Returns
    -------
    The axes, with perturbations in blocks. Colours are symmetric around no effect and saturate at the 98th percentile.

    Raises
    ------
    UnknownConditionError
        If a column is missing.
    DataError
        If the table is empty, or has a gene twice in one row of the map.
    NonFiniteError
        If an effect is NaN or infinite.

    Examples
    --------
    >>> import pandas as pd
    >>> from cfmvc_scvi import pl
    >>> table = pd.DataFrame(
    ...     {"context": ["B", "T"] * 2, "gene": ["ISG15"] * 2 + ["CD74"] * 2, "delta": [2, 1, -1, 0.0]}
    ... )
    >>> ax = pl.effects(table)
    """
    matrix, predicted = _matrix(table)
    top = matrix.abs().max().nlargest(n_genes).index
    matrix = matrix[top]
    matrix = matrix.iloc[:, _order(pdist(matrix.to_numpy().T))]
    ax, own = new_axes(ax, (2.2 + 0.26 * len(top), 1.9 + 0.26 * len(matrix)))
    limit = float(np.quantile(np.abs(matrix.to_numpy()), 0.98)) or 1.0
    image = ax.imshow(matrix, cmap=_CMAP, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    several = matrix.index.get_level_values(0).nunique() > 1
    labels = [f"{perturbation} · {context}" if several else context for perturbation, context in matrix.index]
    marked = [f"{label} ∘" if new else label for label, new in zip(labels, predicted, strict=True)]
    ax.set_yticks(np.arange(len(matrix)), marked, fontsize=8)
    ax.set_xticks(np.arange(len(top)), [shorten(str(gene)) for gene in matrix.columns], fontsize=8, rotation=90)
    first = matrix.index.get_level_values(0)
    for row in np.flatnonzero(first[1:] != first[:-1]) if matrix.index.get_level_values(1).nunique() > 1 else ():
        ax.axhline(row + 0.5, color="white", linewidth=3.0)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    if predicted.any():
        ax.set_title("∘ predicted, not observed", fontsize=8, loc="left", color="#555555")
    bar = figure_of(ax).colorbar(image, ax=ax, pad=0.02, aspect=12, extend="both")
    bar.set_label("Δ log1p CP10k", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    finish(ax, show, save, own)
    return ax


def similarity(
    effects: pd.DataFrame,
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Draw Pearson's correlation between conditions, those alike beside each other.

    Parameters
    ----------
    effects
        Conditions x features: effects on genes, or latent shifts. Their names stand beside the map.
    ax
        Axes to draw on; None makes a figure.
    show
        Show the figure now; None does so where matplotlib is interactive, unless axes are given.
    save
        File to save the figure to.

    Returns
    -------
    The axes. Rows are ordered by average linkage of one minus the correlation; up to twelve have their numbers.

    Raises
    ------
    DataError
        If there are fewer than two conditions, or one whose values are all the same.
    NonFiniteError
        If a value is NaN or infinite.

    Examples
    --------
    >>> import pandas as pd
    >>> from cfmvc_scvi import pl
    >>> ax = pl.similarity(pd.DataFrame([[1.0, 2, 0], [1, 2.5, 0], [-1, 0, 2]], index=["A", "B", "C"]))
    """
    values = effects.to_numpy(dtype=float)
    n_broken = int((~np.isfinite(values)).any(axis=1).sum())
    if n_broken:
        raise NonFiniteError(f"{n_broken} of {len(values)} conditions have values that are NaN or infinite.")
    flat = [str(name) for name, row in zip(effects.index, values, strict=True) if len(row) < 2 or np.ptp(row) == 0]
    if len(values) < 2 or flat:
        told = f"'{flat[0]}' is the same in all features" if flat else f"there are {len(values)} conditions"
        raise DataError(f"{told}: there is nothing to correlate.")
    correlation = np.corrcoef(values)
    order = _order(squareform(1.0 - correlation, checks=False))
    names, shown = [str(effects.index[place]) for place in order], correlation[np.ix_(order, order)]
    side = 1.8 + 0.34 * len(names)
    ax, own = new_axes(ax, (side + 0.9, side))
    image = ax.imshow(shown, cmap=_CMAP, vmin=-1, vmax=1, interpolation="nearest")
    ax.set_xticks(np.arange(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    ax.set_yticks(np.arange(len(names)), names, fontsize=8)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    for row, column in np.ndindex(shown.shape) if len(names) <= _MOST_NUMBERS else ():
        value = np.round(shown[row, column], 2) + 0.0  # no -0.00
        ax.text(
            column, row, f"{value:.2f}".replace("0.", "."), ha="center", va="center", fontsize=7,
            color="white" if abs(value) > 0.6 else "black",
        )  # fmt: skip
    bar = figure_of(ax).colorbar(image, ax=ax, shrink=0.7, pad=0.03, aspect=18)
    bar.set_label("Pearson's r", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    finish(ax, show, save, own)
    return ax


def _matrix(table: pd.DataFrame) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """(perturbation, context) x genes, and whether each row was predicted; rows in the order of the table."""
    absent = [name for name in ("context", "gene", "delta") if name not in table]
    if absent:
        raise UnknownConditionError(f"the table has no column '{absent[0]}'; columns: {', '.join(map(str, table))}.")
    frame = table if "perturbation" in table else table.assign(perturbation="")
    rows = ["perturbation", "context"]
    n_twice = int(frame.duplicated([*rows, "gene"]).sum())
    if n_twice or len(frame) == 0:
        raise DataError(
            f"{n_twice} of {len(frame)} rows have a gene that their perturbation and context have already; of several "
            "perturbations, add a column 'perturbation'."
        )
    n_broken = int((~np.isfinite(frame["delta"].to_numpy(dtype=float))).sum())
    if n_broken:
        raise NonFiniteError(f"{n_broken} of {len(frame)} effects are NaN or infinite.")
    order = pd.MultiIndex.from_frame(frame[rows].astype(str).drop_duplicates()).sortlevel(0, sort_remaining=False)[0]
    matrix = frame.astype(dict.fromkeys(rows, str)).pivot(index=rows, columns="gene", values="delta").loc[order]
    if matrix.isna().any(axis=None):
        raise DataError("not every row of the map has every gene; give effects on the same genes.")
    if "observed" not in frame:
        return matrix, np.zeros(len(matrix), dtype=bool)
    observed = frame.astype(dict.fromkeys(rows, str)).groupby(rows)["observed"].first()
    return matrix, ~observed.loc[order].to_numpy(dtype=bool)


def _order(distance: NDArray[np.float64]) -> NDArray[np.intp]:
    """Places of items such that those alike are neighbours, of their condensed distances."""
    if len(distance) == 0:
        return np.zeros(1, dtype=np.intp)
    return leaves_list(optimal_leaf_ordering(linkage(distance, "average"), distance))
