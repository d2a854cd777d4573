"""Skill of methods between floor and ceiling, metric by metric."""

from __future__ import annotations

__all__ = ["skill"]

import os
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from cfmvc_scvi.errors import DataError, UnknownConditionError
from cfmvc_scvi.pl._style import GREY, OTHER, ROLES, finish, new_axes, plain
from cfmvc_scvi.pl.benchmark import METRICS

_LOWEST = -0.5  # a worse skill is drawn here, as a triangle: one bad method must not squeeze the others


def skill(
    table: pd.DataFrame,
    model: str,
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    r"""Draw how far each method gets from the floor (0) to the ceiling (1), one line per metric.

    Parameters
    ----------
    table
        Methods x metrics: :math:`(s - s_\text{floor}) / (s_\text{ceiling} - s_\text{floor})` of each score. NaN is not
        drawn; values below -0.5 are drawn there as triangles.
    model
        Method to highlight; of the others, the best of each metric is a filled dot.
    ax
        Axes to draw on; None makes a figure.
    show
        Show the figure now; None does so where matplotlib is interactive, unless axes are given.
    save
        File to save the figure to.

    Returns
    -------
    The axes, with the labels of the metrics from top to bottom.

    Raises
    ------
    UnknownConditionError
        If the model is not in the table.
    DataError
        If there is no metric.

    Examples
    --------
    >>> import pandas as pd
    >>> from cfmvc_scvi import pl
    >>> skills = pd.DataFrame({"pearson_delta": [0.8, 0.9], "energy": [0.7, 0.9]}, ["mean shift", "CFMVC"])
    >>> ax = pl.skill(skills, "CFMVC")
    """
    if model not in table.index:
        raise UnknownConditionError(f"'{model}' is not in the table; rows: {', '.join(map(str, table.index))}.")
    if table.shape[1] == 0:
        raise DataError("the table has no metric, so there is nothing to draw.")
    ax, own = new_axes(ax, (6.4, 1.1 + 0.42 * table.shape[1]))
    others = table.drop(index=model)
    for place, name in enumerate(table.columns):
        values = others[name].dropna()
        best = values.index == values.idxmax() if len(values) else np.zeros(0, dtype=bool)
        ax.axhline(place, color="#e6e6e6", linewidth=0.8, zorder=0)
        _dots(ax, values[~best], place, {"facecolor": "white", "edgecolor": OTHER, "s": 30, "zorder": 2})
        _dots(ax, values[best], place, {"color": ROLES["true"], "s": 46, "zorder": 3})
        mine = table.loc[[model], name].dropna()
        _dots(ax, mine, place, {"color": ROLES["predicted"], "s": 60, "zorder": 4}, marker="D")
    for bound in (0.0, 1.0):
        ax.axvline(bound, color=GREY, linewidth=1.2, linestyle=":" if bound == 0 else "--", zorder=1)
    shown = table.to_numpy(dtype=float)
    ax.set_xlim(min(-0.08, max(_LOWEST - 0.06, np.nanmin(shown) - 0.06)), max(1.06, np.nanmax(shown) + 0.06))
    ax.set_ylim(table.shape[1] - 0.5, -0.7)
    labels = [METRICS[name].label if name in METRICS else str(name) for name in table.columns]
    ax.set_yticks(np.arange(table.shape[1]), labels)
    ax.set_xlabel("skill: 0 = no change (floor), 1 = half of the real cells predict the rest (ceiling)", fontsize=8)
    plain(ax)
    ax.tick_params(axis="y", length=0, labelsize=9)
    ax.spines["left"].set_visible(False)
    handles = [
        _mark(model, "D", ROLES["predicted"]),
        _mark("best of the others", "o", ROLES["true"]),
        _mark("others", "o", "white", OTHER),
    ]
    ax.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize=8)
    finish(ax, show, save, own)
    return ax


def _dots(ax: Axes, values: pd.Series, place: int, style: dict[str, Any], marker: str = "o") -> None:
    inside = values[values >= _LOWEST]
    ax.scatter(inside, np.full(len(inside), place), marker=marker, **style)
    if len(values) > len(inside):
        ax.scatter([_LOWEST], [place], marker="<", **style)


def _mark(label: str, marker: str, colour: str, edge: str | None = None) -> Line2D:
    return Line2D([], [], linestyle="", marker=marker, color=colour, markeredgecolor=edge or colour, label=label)
