"""Values of cells on a tissue."""

from __future__ import annotations

__all__ = ["tissue"]

import os

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from cfmvc_scvi.errors import DataError, NonFiniteError
from cfmvc_scvi.pl._style import figure_of, finish, new_axes


def tissue(
    coordinates: ArrayLike,
    values: ArrayLike,
    region: ArrayLike | None = None,
    *,
    label: str | None = None,
    size: float | None = None,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Draw cells where they lie, coloured by a value, with the perturbed region outlined.

    Parameters
    ----------
    coordinates
        Positions (cells, 2), of one slice.
    values
        What is shown, such as the response in ``obs["virtual_tissue"]`` (cells,); cells with NaN are left out.
    region
        Mask of the perturbed cells (cells,), drawn with a dark edge.
    label
        What the value is, beside the colour bar.
    size
        Area of a dot in points squared; None fits the number of cells.
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
    The axes.

    Raises
    ------
    DataError
        If shapes differ.
    NonFiniteError
        If a coordinate is NaN or infinite, or no value is finite.

    Examples
    --------
    >>> depth = np.asarray(adata.X.sum(axis=1)).ravel()
    >>> ax = cfmvc_scvi.pl.tissue(adata.obsm["spatial"], depth, adata.obs["perturbation"] == "A", label="UMI")
    """
    place, value = np.asarray(coordinates, dtype=float), np.asarray(values, dtype=float)
    mask = np.zeros(len(value), dtype=bool) if region is None else np.asarray(region)
    if place.ndim != 2 or place.shape[1] != 2 or value.shape != (len(place),) or mask.shape != value.shape:
        raise DataError(
            f"coordinates {place.shape}, values {value.shape} and region {mask.shape} must be (cells, 2) and one each."
        )
    if n_bad := int((~np.isfinite(place)).any(axis=1).sum()):
        raise NonFiniteError(f"{n_bad} cells have coordinates that are NaN or infinite; leave them out.")
    shown = np.isfinite(value)
    if not shown.any():
        raise NonFiniteError(f"none of the {len(value)} values is a finite number.")
    ax, own = new_axes(ax, (4.6, 4.0))
    area = size or float(np.clip(12000 / max(shown.sum(), 1), 2.0, 40.0))
    order = np.flatnonzero(shown)[np.argsort(value[shown], kind="stable")]
    edges = ["#222222" if held else "none" for held in mask[order]]
    x, y = place[order].T
    dots = ax.scatter(x, y, c=value[order], s=area, cmap="viridis", edgecolors=edges, linewidths=0.6)
    dots.set_rasterized(True)
    bar = figure_of(ax).colorbar(dots, ax=ax, shrink=0.7)
    bar.set_label(label or "", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    ax.set(xticks=[], yticks=[], aspect="equal")
    ax.set_title(title or "", fontsize=10)
    ax.spines[:].set_visible(False)
    finish(ax, show, save, own)
    return ax
