"""Genes of cells on their way from one condition to another."""

from __future__ import annotations

__all__ = ["trajectory"]

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from cfmvc_scvi.errors import DataError, NonFiniteError
from cfmvc_scvi.pl._style import colours, finish, new_axes, plain

_MOST = 6  # genes that can be told apart


def trajectory(
    values: ArrayLike,
    times: ArrayLike,
    genes: Sequence[str],
    *,
    n_genes: int = _MOST,
    ylabel: str = "log1p CP10k",
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Draw genes over path time: the mean of the cells as a line, the middle half of them as a band.

    Parameters
    ----------
    values
        Expression (cells, genes), dense, of cells at all times, such as those of `tl.counterfactual_trajectory`.
    times
        Path time of each cell (cells,): 0 is where it comes from, 1 the other condition.
    genes
        Names of the columns.
    n_genes
        Genes whose mean changes most from the first time to the last, of at most six that can be told apart.
    ylabel
        Unit of the values.
    title
        Title of the axes.
    ax
        Axes to draw on; None makes a figure.
    show
        Show the figure now; None does so where matplotlib is interactive, unless axes are given.
    save
        File to save the figure to.

    Returns
    -------
    The axes, with one line per gene, those that rise most first.

    Raises
    ------
    DataError
        If shapes differ, there are fewer than two times, or too many genes.
    NonFiniteError
        If a value or a time is NaN or infinite.

    Examples
    --------
    >>> path = cfmvc_scvi.tl.counterfactual_trajectory(control, model, "A", times=3)
    >>> values = cfmvc_scvi.metrics.log_normalize(path.X)
    >>> ax = cfmvc_scvi.pl.trajectory(values, path.obs["t"], list(path.var_names))
    """
    cells, t = np.asarray(values, dtype=float), np.asarray(times, dtype=float)
    if cells.ndim != 2 or t.shape != (len(cells),) or len(genes) != cells.shape[1]:
        raise DataError(f"values {cells.shape}, times {t.shape} and {len(genes)} genes; give one of each.")
    if n_broken := int((~np.isfinite(cells).all(axis=1) | ~np.isfinite(t)).sum()):
        raise NonFiniteError(f"{n_broken} of {len(cells)} cells have values or times that are NaN or infinite.")
    moments = np.unique(t)
    if len(moments) < 2 or not 1 <= n_genes <= _MOST:
        raise DataError(f"{len(moments)} times and n_genes={n_genes}; at least two times and 1 to {_MOST} genes do.")
    means = np.stack([cells[t == moment].mean(axis=0) for moment in moments])
    change = means[-1] - means[0]
    top = np.argsort(-np.abs(change), kind="stable")[:n_genes]
    top = top[np.argsort(-change[top], kind="stable")]
    quartiles = np.stack([np.quantile(cells[t == moment][:, top], [0.25, 0.75], axis=0) for moment in moments])
    ax, own = new_axes(ax, (4.8, 3.4))
    for place, (name, colour) in enumerate(colours([str(genes[gene]) for gene in top]).items()):
        ax.fill_between(moments, *quartiles[:, :, place].T, color=colour, alpha=0.1, linewidth=0)
        ax.plot(moments, means[:, top[place]], color=colour, linewidth=1.6, marker="o", markersize=3, label=name)
    ax.set_xlabel("path time (0: the cells, 1: the other condition)", fontsize=9)
    ax.set_ylabel(ylabel, fontsize=9)
    ax.set_title(title or "", fontsize=10)
    ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    plain(ax)
    finish(ax, show, save, own)
    return ax
