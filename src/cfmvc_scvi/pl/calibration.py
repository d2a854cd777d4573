"""Promised against observed coverage of intervals."""

from __future__ import annotations

__all__ = ["calibration"]

import os
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from cfmvc_scvi.errors import DataError, UnknownConditionError
from cfmvc_scvi.pl._style import GREY, ROLES, colours, finish, new_axes, plain

_ALL = "all"


def calibration(
    nominal: ArrayLike | pd.DataFrame,
    observed: ArrayLike | None = None,
    n: ArrayLike | None = None,
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Draw the share of true values inside intervals against the share that the intervals promise.

    On the dashed line intervals keep their promise; below it they are too narrow.

    Parameters
    ----------
    nominal
        Promised coverage, between 0 and 1, (points,); or a frame with the columns nominal, observed and, if wanted,
        label (one line for each) and n.
    observed
        Share of true values inside, between 0 and 1, (points,); not with a frame.
    n
        Number of values behind each point, (points,), whole and positive. Points that share label and nominal are
        averaged with these weights (else alike). The numbers stand at the points, in the corner if they are all the
        same or, of several lines, in the legend.
    ax
        Axes to draw on; None makes a figure.
    show
        Show the figure now; None does so where matplotlib is interactive, unless axes are given.
    save
        File to save the figure to.

    Returns
    -------
    The axes, with one line per label.

    Raises
    ------
    UnknownConditionError
        If a frame lacks a column.
    DataError
        If there are no points, shapes differ, coverages are not between 0 and 1, or a number is not positive.

    Examples
    --------
    >>> from cfmvc_scvi import pl
    >>> ax = pl.calibration([0.5, 0.8, 0.9], [0.47, 0.81, 0.88], [1200, 1200, 1200])
    """
    points = _points(nominal, observed, n)
    ax, own = new_axes(ax, (4.0, 4.0))
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=1.0, linestyle="--", zorder=1)
    labels = [str(label) for label in pd.unique(points["label"])]
    palette = {_ALL: ROLES["predicted"]} if labels == [_ALL] else colours(labels)
    for label, group in points.groupby("label", sort=False):
        line, counted = group.sort_values("nominal"), group["n"].notna().all()
        name = f"{label} (n = {group['n'].sum():,.0f})" if counted and len(labels) > 1 else label
        ax.plot(line["nominal"], line["observed"], marker="o", markersize=5, color=palette[str(label)], label=name)
        if counted and len(labels) == 1 and line["n"].nunique() == 1:
            each = f"n = {int(line['n'].iloc[0]):,} each"
            ax.text(0.97, 0.04, each, transform=ax.transAxes, ha="right", fontsize=8, color="#555555")
            continue
        for point in line.itertuples() if counted and len(labels) == 1 else ():
            offset: dict[str, Any] = {
                "textcoords": "offset points",
                "xytext": (6, -9),
                "fontsize": 7,
                "color": "#555555",
            }
            ax.annotate(f"n = {int(point.n):,}", (point.nominal, point.observed), **offset)
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
    ax.set_xlabel("promised coverage", fontsize=9)
    ax.set_ylabel("observed coverage", fontsize=9)
    plain(ax)
    if len(labels) > 1:
        ax.legend(frameon=False, fontsize=8)
    finish(ax, show, save, own)
    return ax


def _points(nominal: ArrayLike | pd.DataFrame, observed: ArrayLike | None, n: ArrayLike | None) -> pd.DataFrame:
    """Checked points, averaged where label and nominal coverage are the same: label, nominal, observed, n (or NaN)."""
    if isinstance(nominal, pd.DataFrame):
        if absent := {"nominal", "observed"} - set(nominal):
            raise UnknownConditionError(f"the frame has no column '{min(absent)}'; columns: {', '.join(nominal)}.")
        frame = nominal.reindex(columns=["label", "nominal", "observed", "n"])
    else:
        parts = {"nominal": nominal, "observed": observed, "n": n}
        arrays = {name: np.asarray(part, dtype=float) for name, part in parts.items() if part is not None}
        shapes = {array.shape for array in arrays.values()}
        if len(shapes) > 1 or arrays["nominal"].ndim != 1 or "observed" not in arrays:
            given = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
            raise DataError(f"{given}; give nominal and observed coverage, one of each per point.")
        frame = pd.DataFrame(arrays).reindex(columns=["label", "nominal", "observed", "n"])
    frame["label"] = frame["label"].astype(object).where(frame["label"].notna(), _ALL).astype(str)
    shares = frame[["nominal", "observed"]].to_numpy(dtype=float)
    n_broken = int((~((shares >= 0) & (shares <= 1))).any(axis=1).sum() + (frame["n"] <= 0).sum())
    if n_broken or len(frame) == 0:
        raise DataError(f"{n_broken} of {len(frame)} points are not coverages between 0 and 1 of one value or more.")
    grouped = frame.groupby(["label", "nominal"], sort=False)
    return pd.DataFrame([_average(label, share, group) for (label, share), group in grouped])


def _average(label: str, nominal: float, group: pd.DataFrame) -> dict[str, object]:
    weights = group["n"].to_numpy(dtype=float) if group["n"].notna().all() else None
    observed = float(np.average(group["observed"], weights=weights))
    return {"label": label, "nominal": nominal, "observed": observed, "n": np.nan if weights is None else weights.sum()}
