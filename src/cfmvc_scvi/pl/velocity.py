"""Arrows of where cells go, in an embedding."""

from __future__ import annotations

__all__ = ["project_velocity", "velocity"]

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray
from sklearn.neighbors import NearestNeighbors

from cfmvc_scvi.errors import DataError, NonFiniteError
from cfmvc_scvi.pl._style import GREY, colours, finish, new_axes

Array = NDArray[np.float64]

_SHARPNESS = 10.0  # of the transition probabilities, as in scVelo
_NEAR_GRID = 0.5  # in grid spacings: sd of the kernel that averages arrows
_LEAST_MASS = 0.2  # of the densest grid point; arrows far from any cell are not drawn


def project_velocity(embedding: ArrayLike, latent: ArrayLike, velocity: ArrayLike, n_neighbors: int = 30) -> Array:
    r"""Carry velocities in a latent over to an embedding of the same cells, through the neighbours of each cell.

    A cell goes to its neighbours j with probabilities that grow with the cosine of its velocity and the way to them;
    the arrow is the mean way in the embedding, in unit vectors, beyond that of a random neighbour:

    .. math:: P_{ij} \propto e^{10 \cos(z_j - z_i, v_i)}, \qquad
        a_i = |v_i| \sum_j \left(P_{ij} - \tfrac{1}{k}\right) \frac{x_j - x_i}{|x_j - x_i|}

    Parameters
    ----------
    embedding
        Coordinates (cells, 2).
    latent
        States (cells, dims), in which neighbours are sought.
    velocity
        Change of state of each cell (cells, dims).
    n_neighbors
        Neighbours of each cell.

    Returns
    -------
    Arrows (cells, 2), zero for cells that do not move. Directions count; lengths compare cells with each other.

    Raises
    ------
    DataError
        If shapes differ, or there are not more cells than neighbours.
    NonFiniteError
        If a value is NaN or infinite.

    References
    ----------
    La Manno et al., RNA velocity of single cells, Nature 2018, and Bergen et al. 2020 (scVelo), whose projection it is.
    """
    x, z, v = (np.asarray(values, dtype=float) for values in (embedding, latent, velocity))
    if x.ndim != 2 or x.shape[1] != 2 or z.ndim != 2 or z.shape != v.shape or len(x) != len(z):
        raise DataError(
            f"embedding {x.shape}, latent {z.shape} and velocity {v.shape} must be (cells, 2), (cells, dims) and "
            "(cells, dims) of the same cells."
        )
    if not 1 <= n_neighbors < len(x):
        raise DataError(f"n_neighbors is {n_neighbors} for {len(x)} cells; pass at least 1 and fewer than the cells.")
    for name, values in (("embedding", x), ("latent", z), ("velocity", v)):
        if n_bad := int((~np.isfinite(values)).any(axis=1).sum()):
            raise NonFiniteError(f"{name} has NaN or infinite values in {n_bad} cells; leave them out.")
    near = NearestNeighbors(n_neighbors=n_neighbors).fit(z).kneighbors(return_distance=False)
    way = z[near] - z[:, None]
    length = np.linalg.norm(v, axis=1)
    scale = np.linalg.norm(way, axis=2) * length[:, None]
    cosine = np.einsum("ijk,ik->ij", way, v) / np.where(scale > 0, scale, 1.0)
    probability = np.exp(_SHARPNESS * (cosine - cosine.max(axis=1, keepdims=True)))
    probability /= probability.sum(axis=1, keepdims=True)
    step = x[near] - x[:, None]
    size = np.linalg.norm(step, axis=2, keepdims=True)
    unit = step / np.where(size > 0, size, 1.0)
    return length[:, None] * ((probability - 1 / n_neighbors)[:, :, None] * unit).sum(axis=1)


def velocity(
    embedding: ArrayLike,
    latent: ArrayLike,
    velocity: ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    n_grid: int = 20,
    n_neighbors: int = 30,
    title: str | None = None,
    axis_name: str = "UMAP",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Draw where cells go as arrows on a grid over an embedding.

    Arrows of cells (`project_velocity`) are averaged around each point of the grid with a Gaussian kernel.

    Parameters
    ----------
    embedding
        Coordinates (cells, 2), such as ``adata.obsm["X_umap"]``.
    latent, velocity
        ``obsm["X_cfmvc"]`` and the way to ``obsm["X_cfmvc_counterfactual"]`` of `CFMVC.predict_counterfactual`, or
        ``obsm["X_cfmvc_velocity"]`` of `tl.counterfactual_trajectory`, (cells, dims) each.
    groups
        Name of each cell's colour (cells,).
    n_grid
        Points of the grid along each axis.
    n_neighbors
        See `project_velocity`.
    title
        Title of the axes.
    axis_name
        Name of the coordinates.
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
        If shapes differ, there are too few cells, or the grid has fewer than two points.
    NonFiniteError
        If a value is NaN or infinite.

    Examples
    --------
    >>> from sklearn.decomposition import PCA
    >>> cf = model.predict_counterfactual(control, perturbation="A", output="latent")
    >>> z, moved = cf.obsm["X_cfmvc"], cf.obsm["X_cfmvc_counterfactual"]
    >>> map_of_cells = PCA(2).fit_transform(z)  # or a UMAP
    >>> ax = cfmvc_scvi.pl.velocity(map_of_cells, z, moved - z, groups=control.obs["batch"])
    """
    if n_grid < 2:
        raise DataError(f"n_grid is {n_grid}; pass at least 2.")
    arrows = project_velocity(embedding, latent, velocity, n_neighbors)
    x = np.asarray(embedding, dtype=float)
    names = np.full(len(x), "cells") if groups is None else np.asarray(groups, dtype=str)
    if len(names) != len(x):
        raise DataError(f"groups has {len(names)} names for {len(x)} cells; give one each.")
    points, means = _on_grid(x, arrows, n_grid)
    ax, own = new_axes(ax, (4.6, 4.0))
    kinds = list(dict.fromkeys(names.tolist()))
    for name, colour in ({"cells": GREY} if groups is None else colours(kinds)).items():
        chosen = x[names == name]
        ax.scatter(chosen[:, 0], chosen[:, 1], s=8, color=colour, alpha=0.35, linewidths=0, label=name, rasterized=True)
    longest = np.linalg.norm(means, axis=1).max(initial=0.0)
    if longest > 0:
        spacing = float(np.ptp(x, axis=0).max()) / n_grid
        shown = 1.3 * spacing * means / longest
        head: dict[str, Any] = {"headwidth": 3.5, "headlength": 3.5, "headaxislength": 3.0}
        how: dict[str, Any] = {
            "angles": "xy",
            "scale_units": "xy",
            "scale": 1,
            "width": 0.0032,
            "color": "#222222",
            "zorder": 3,
        }
        ax.quiver(*points.T, *shown.T, **how, **head)
    ax.set(xticks=[], yticks=[])
    ax.set_title(title or "", fontsize=10)
    ax.set_xlabel(f"{axis_name} 1", fontsize=9, loc="left")
    ax.set_ylabel(f"{axis_name} 2", fontsize=9, loc="bottom")
    ax.spines[["top", "right"]].set_visible(False)
    if groups is not None:
        beside: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
        legend = ax.legend(frameon=False, fontsize=8, markerscale=2, **beside)
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set_alpha(1.0)
    finish(ax, show, save, own)
    return ax


def _on_grid(x: Array, arrows: Array, n_grid: int) -> tuple[Array, Array]:
    """Return the points of a grid that are near cells (points, 2), and the mean arrow around each."""
    axes = [np.linspace(low, high, n_grid) for low, high in zip(x.min(axis=0), x.max(axis=0), strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    spacing = np.maximum([axis[1] - axis[0] for axis in axes], np.finfo(float).tiny)
    squared = (((points[:, None] - x) / (_NEAR_GRID * spacing)) ** 2).sum(axis=2)
    weight = np.exp(-0.5 * squared)
    mass = weight.sum(axis=1)
    near = mass > _LEAST_MASS * mass.max()
    return points[near], (weight[near] @ arrows) / mass[near, None]
