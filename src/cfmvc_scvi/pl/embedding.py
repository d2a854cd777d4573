"""Cells in two dimensions."""

from __future__ import annotations

__all__ = ["embedding"]

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from cfmvc_scvi.errors import DataError, NonFiniteError
from cfmvc_scvi.pl._style import colours, finish, new_axes

_LEGEND_ROWS = 16


def embedding(
    coordinates: ArrayLike,
    labels: ArrayLike,
    *,
    title: str | None = None,
    axis_name: str = "UMAP",
    palette: Mapping[str, str] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Draw cells at their coordinates, coloured by label; control cells lie below the others.

    Parameters
    ----------
    coordinates
        (cells, 2), for example of a PCA or UMAP computed on all groups together.
    labels
        Group of each cell, (cells,); ``"control"``, ``"predicted"`` and ``"true"`` have their own colours.
    title
        Title of the axes.
    axis_name
        Name of the coordinates.
    palette
        Colour of each label, in the order of the legend; None: our colours, in the order of appearance.
    ax
        Axes to draw on; None makes a figure.
    show
        Show the figure now; None does so where matplotlib is interactive, unless axes are given.
    save
        File to save the figure to.

    Returns
    -------
    The axes, with one collection of points per label.

    Raises
    ------
    DataError
        If the shapes do not fit, or the palette lacks a label.
    NonFiniteError
        If a coordinate is NaN or infinite.

    Examples
    --------
    >>> import numpy as np
    >>> from cfmvc_scvi import pl
    >>> ax = pl.embedding(np.eye(4)[:, :2], ["control", "control", "predicted", "true"])
    """
    points, names = np.asarray(coordinates, dtype=float), np.asarray(labels).astype(str)
    if points.ndim != 2 or points.shape[1] != 2 or names.shape != (len(points),) or len(points) == 0:
        raise DataError(f"coordinates {points.shape} and labels {names.shape}; they must be (cells, 2) and (cells,).")
    n_broken = int((~np.isfinite(points)).any(axis=1).sum())
    if n_broken:
        raise NonFiniteError(f"{n_broken} of {len(points)} cells have coordinates that are NaN or infinite.")
    ax, own = new_axes(ax, (4.4, 3.6))
    order = [str(name) for name in pd.unique(names)]
    chosen_colours = colours(order) if palette is None else palette
    if missing := [name for name in order if name not in chosen_colours]:
        raise DataError(f"the palette has no colour for '{missing[0]}'; it has: {', '.join(chosen_colours)}.")
    size = float(np.clip(8e3 / len(points), 2.0, 20.0))
    for name, colour in chosen_colours.items():
        chosen = points[names == name]
        if len(chosen) == 0:
            continue
        layer = 1.0 if name == "control" else 2.0
        dots = ax.scatter(chosen[:, 0], chosen[:, 1], s=size, color=colour, alpha=0.6, linewidths=0, label=name)
        dots.set(zorder=layer, rasterized=True)
    ax.set(xticks=[], yticks=[])
    ax.set_title(title or "", fontsize=10)
    ax.set_xlabel(f"{axis_name} 1", fontsize=9, loc="left")
    ax.set_ylabel(f"{axis_name} 2", fontsize=9, loc="bottom")
    ax.spines[["top", "right"]].set_visible(False)
    beside: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
    n_columns = -(-len(ax.collections) // _LEGEND_ROWS)
    legend = ax.legend(frameon=False, fontsize=8, handletextpad=0.2, ncols=n_columns, **beside)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set(sizes=[20.0], alpha=1.0)
    finish(ax, show, save, own)
    return ax
