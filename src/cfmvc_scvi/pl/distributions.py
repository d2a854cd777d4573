"""Distributions of single genes in several groups of cells."""

from __future__ import annotations

__all__ = ["distributions"]

import os
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from cfmvc_scvi.errors import DataError, NonFiniteError
from cfmvc_scvi.pl._labels import shorten
from cfmvc_scvi.pl._style import colours, finish, new_axes, plain

_LETTERS = 5  # of a name, that have room below a violin


def distributions(
    values: Mapping[str, ArrayLike],
    genes: Sequence[str],
    *,
    ylabel: str = "log1p CP10k",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Draw the distribution of each gene in each group of cells as violins, with the mean as a white dot.

    Parameters
    ----------
    values
        Name of a group, for example ``"control"``, ``"predicted"`` and ``"true"`` (which have their own colours), to
        its expression, (cells, genes), dense.
    genes
        Names of the columns of each group.
    ylabel
        Unit of the values.
    ax
        Axes to draw on; None makes a figure.
    show
        Show the figure now; None does so where matplotlib is interactive, unless axes are given.
    save
        File to save the figure to.

    Returns
    -------
    The axes.

    Raises
    ------
    DataError
        If there are no groups, a group has fewer than two cells or another number of genes.
    NonFiniteError
        If a value is NaN or infinite.

    Examples
    --------
    >>> import numpy as np
    >>> from cfmvc_scvi import pl
    >>> rng = np.random.default_rng(0)
    >>> cells = {"control": rng.poisson(1.0, (50, 2)), "predicted": rng.poisson(3.0, (50, 2))}
    >>> ax = pl.distributions(cells, ["ISG15", "IFI6"], ylabel="counts")
    """
    groups = {name: np.asarray(cells, dtype=float) for name, cells in values.items()}
    _check(groups, len(genes))
    ax, own = new_axes(ax, (1.2 + 0.35 * len(genes) * (len(groups) + 0.5), 3.2))
    palette = colours(list(groups))
    width = 0.84 / len(groups)
    centre = (len(groups) - 1) / 2
    for number, (name, cells) in enumerate(groups.items()):
        positions = np.arange(len(genes)) + (number - centre) * width
        parts: dict[str, Any] = ax.violinplot(list(cells.T), positions, widths=0.92 * width, showextrema=False)
        for body in parts["bodies"]:
            body.set(facecolor=palette[name], edgecolor="none", alpha=0.85)
        ax.scatter(positions, cells.mean(axis=0), s=12, color="white", edgecolors="black", linewidths=0.6, zorder=3)
    names = [shorten(str(gene)) for gene in genes]
    ax.set_xticks(np.arange(len(genes)), names)
    if max(map(len, names)) > _LETTERS * len(groups):
        ax.tick_params(axis="x", labelrotation=30)
        plt.setp(ax.get_xticklabels(), ha="right", rotation_mode="anchor")
    ax.set_ylabel(ylabel, fontsize=9)
    ax.set_ylim(bottom=min(0.0, min(cells.min() for cells in groups.values())))
    plain(ax)
    handles = [Patch(facecolor=palette[name], label=name) for name in groups]
    above = (0.5, 1.0)
    ax.legend(handles=handles, loc="lower center", bbox_to_anchor=above, frameon=False, fontsize=8, ncols=len(groups))
    finish(ax, show, save, own)
    return ax


def _check(groups: Mapping[str, np.ndarray], n_genes: int) -> None:
    if not groups or n_genes == 0:
        raise DataError(f"there are {len(groups)} groups of cells and {n_genes} genes; at least one of each is needed.")
    for name, cells in groups.items():
        if cells.ndim != 2 or cells.shape[1] != n_genes or len(cells) < 2:
            raise DataError(f"'{name}' has the shape {cells.shape}; two cells or more and {n_genes} genes are needed.")
        n_broken = int((~np.isfinite(cells)).sum())
        if n_broken:
            raise NonFiniteError(f"'{name}' has {n_broken} values that are NaN or infinite.")
