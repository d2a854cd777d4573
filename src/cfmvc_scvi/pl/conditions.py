"""Conditions in two dimensions."""

from __future__ import annotations

__all__ = ["conditions"]

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cfmvc_scvi.errors import DataError, NonFiniteError
from cfmvc_scvi.pl._labels import label_points
from cfmvc_scvi.pl._style import GREY, ROLES, colours, finish, new_axes, plain


def conditions(
    effects: pd.DataFrame,
    groups: Sequence[str] | None = None,
    *,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Draw conditions on a map of their effects, with no effect as a cross in its origin.

    The map is the plane through the origin that holds most of the sum of squares: conditions that do the same lie in
    the same direction from the cross, and those that do more lie further away.

    Parameters
    ----------
    effects
        Conditions x features: effects on genes, or latent shifts. Their names stand beside the dots, where there is
        room.
    groups
        Name of each condition's colour (conditions,); None is one colour.
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
    The axes. Their labels give the share of the sum of squares.

    Raises
    ------
    DataError
        If there are fewer than two conditions or features, no effect at all, or not one group for each condition.
    NonFiniteError
        If a value is NaN or infinite.

    Examples
    --------
    >>> import pandas as pd
    >>> from cfmvc_scvi import pl
    >>> ax = pl.conditions(pd.DataFrame([[1.0, 2, 0], [1, 2.5, 0], [-1, 0, 2]], index=["A", "B", "C"]))
    """
    values = effects.to_numpy(dtype=float)
    kinds = ["effect"] * len(values) if groups is None else [str(group) for group in groups]
    if n_broken := int((~np.isfinite(values)).any(axis=1).sum()):
        raise NonFiniteError(f"{n_broken} of {len(values)} conditions have values that are NaN or infinite.")
    if min(values.shape) < 2 or not values.any() or len(kinds) != len(values):
        raise DataError(
            f"{values.shape[0]} conditions with {values.shape[1]} features and {len(kinds)} groups; at least two of "
            "each, with an effect, and one group for each condition are needed."
        )
    u, s, _ = np.linalg.svd(values, full_matrices=False)
    points = u[:, :2] * s[:2] * np.where(u[np.abs(u[:, :2]).argmax(axis=0), [0, 1]] < 0, -1.0, 1.0)
    share = s[:2] ** 2 / (s**2).sum()
    ax, own = new_axes(ax, (4.6, 4.0))
    palette = {"effect": ROLES["true"]} if groups is None else colours(list(dict.fromkeys(kinds)))
    for name, colour in palette.items():
        chosen = points[np.array(kinds) == name]
        ax.scatter(chosen[:, 0], chosen[:, 1], s=34, color=colour, linewidths=0, label=name, zorder=3)
    for x, y in points:
        ax.plot([0, x], [0, y], color="#dddddd", linewidth=0.8, zorder=1)
    ax.scatter([0], [0], marker="+", s=80, color=GREY, zorder=2, label="no effect")
    ax.margins(0.14)
    ax.set_xlabel(f"first axis ({share[0]:.0%})", fontsize=9)
    ax.set_ylabel(f"second axis ({share[1]:.0%})", fontsize=9)
    ax.set_title(title or "", fontsize=10)
    plain(ax)
    if groups is not None:
        ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    label_points(ax, np.vstack([points, [[0.0, 0.0]]]), {i: str(name) for i, name in enumerate(effects.index)}, size=8)
    finish(ax, show, save, own)
    return ax
