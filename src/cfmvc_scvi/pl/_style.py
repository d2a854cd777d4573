"""Colours and axes that all figures share, and how a figure ends."""

from __future__ import annotations

import os
from collections.abc import Sequence

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scanpy.plotting.palettes import default_20, default_102

from cfmvc_scvi.errors import DataError

__all__ = ["GREY", "OTHER", "ROLES", "colours", "figure_of", "finish", "new_axes", "panels", "plain"]

GREY = "#8a8a8a"
OTHER = "#9ecae1"  # methods that are not the one looked at
# Okabe and Ito (2008), https://jfly.uni-koeln.de/color/: told apart by every kind of colour vision
_OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
ROLES = {"control": GREY, "predicted": _OKABE_ITO[1], "true": _OKABE_ITO[0]}


def colours(names: Sequence[str]) -> dict[str, str]:
    """One colour per name: control, predicted and true have their own, others follow in order.

    More names than the palette has colours get scanpy's, which are as many as 102.
    """
    free = [colour for colour in _OKABE_ITO if colour not in {ROLES[name] for name in names if name in ROLES}]
    others = [name for name in names if name not in ROLES]
    if len(others) > len(free):
        free = default_20 if len(others) <= len(default_20) else default_102
    return {name: ROLES.get(name) or free[others.index(name) % len(free)] for name in names}


def new_axes(ax: Axes | None, size: tuple[float, float]) -> tuple[Axes, bool]:
    """Return `ax`, or the axes of a new figure of `size` inches, and whether the figure is our own."""
    return (plt.subplots(figsize=size, layout="constrained")[1], True) if ax is None else (ax, False)


def panels(
    axes: Sequence[Axes] | None, n_panels: int, size: tuple[float, float], n_columns: int
) -> tuple[list[Axes], bool]:
    """Return the axes given, one per panel, or those of a new figure, and whether the figure is our own.

    `size` is that of a panel, in inches.
    """
    if axes is not None:
        if len(axes) != n_panels:
            raise DataError(f"axes has {len(axes)} axes for {n_panels} panels; give one for each, or none.")
        return list(axes), False
    n_columns = min(n_columns, n_panels)
    n_rows = -(-n_panels // n_columns)
    figsize = (size[0] * n_columns, size[1] * n_rows)
    grid = plt.subplots(n_rows, n_columns, figsize=figsize, layout="constrained", squeeze=False)[1].ravel()
    for unused in grid[n_panels:]:
        unused.remove()
    return list(grid[:n_panels]), True


def plain(ax: Axes) -> None:
    """Take away what carries no information."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)


def figure_of(ax: Axes) -> Figure:
    """Return the whole figure that `ax` is in."""
    figure = ax.get_figure(root=True)
    if figure is None:
        raise DataError("the axes belong to no figure; make them with matplotlib.pyplot.subplots.")
    return figure


def finish(ax: Axes, show: bool | None, save: str | os.PathLike[str] | None, own: bool) -> None:
    """Save the figure of `ax` at 200 dots per inch, and show it.

    By default a figure of our `own` is shown where matplotlib is interactive, and one of the caller's is not: there may
    be more to draw on it.
    """
    if save is not None:
        figure_of(ax).savefig(save, dpi=200)
    if (own and matplotlib.is_interactive()) if show is None else show:
        plt.show()
