"""Scores of methods between floor and ceiling."""

from __future__ import annotations

__all__ = ["METRICS", "Metric", "benchmark"]

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from cfmvc_scvi._keys import METRICS, Metric
from cfmvc_scvi.errors import UnknownConditionError
from cfmvc_scvi.pl._style import GREY, OTHER, ROLES, figure_of, finish, panels, plain

_HINT = {"high": "higher is better", "low": "lower is better", "zero": "zero is best"}


def benchmark(
    table: pd.DataFrame,
    *,
    metrics: Sequence[str] | None = None,
    model: str | None = None,
    floor: str = "no change",
    ceiling: str = "ceiling",
    axes: Sequence[Axes] | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> list[Axes]:
    """Draw the scores of each method as bars, one panel per metric, with floor and ceiling as lines.

    Parameters
    ----------
    table
        Methods x metrics, as of `benchmark.summarise`.
    metrics
        Columns to draw; None draws those of `METRICS` that are in the table.
    model
        Method to highlight; None highlights none.
    floor, ceiling
        Rows drawn as lines, a dotted and a dashed one, where the table has them.
    axes
        One axes for each panel; None makes a figure.
    show
        Show the figure now; None does so where matplotlib is interactive, unless axes are given.
    save
        File to save the figure to.

    Returns
    -------
    The axes of the panels. Bars of scores that are not defined (NaN) have no length.

    Raises
    ------
    UnknownConditionError
        If a metric or the model is not in the table, or there is no method to draw.
    DataError
        If there are not as many axes as panels.

    Examples
    --------
    >>> import pandas as pd
    >>> from cfmvc_scvi import pl
    >>> scores = pd.DataFrame({"pearson_delta": [0.0, 0.8, 0.9, 0.95]}, ["no change", "mean shift", "CFMVC", "ceiling"])
    >>> axes = pl.benchmark(scores, model="CFMVC")
    """
    chosen = [name for name in METRICS if name in table] if metrics is None else list(metrics)
    lines = {name: style for name, style in ((floor, ":"), (ceiling, "--")) if name in table.index}
    methods = [str(name) for name in table.index if name not in lines]
    absent = [name for name in chosen if name not in table] + [name for name in [model] if name and name not in methods]
    if absent or not chosen or not methods:
        missing = f"not there: {', '.join(absent)}" if absent else "nothing to draw"
        rows, columns = (", ".join(map(str, names)) for names in (table.index, table.columns))
        raise UnknownConditionError(f"{missing}; rows: {rows}; columns: {columns}.")
    drawn, own = panels(axes, len(chosen), (2.9, 0.8 + 0.28 * len(methods)), n_columns=3)
    place = np.arange(len(methods))
    for number, (ax, name) in enumerate(zip(drawn, chosen, strict=True)):
        values = table.loc[methods, name].to_numpy(float)
        bar_colours = [ROLES["predicted"] if method == model else OTHER for method in methods]
        ax.barh(place, values, height=0.7, color=bar_colours)
        ax.axvline(0.0, color="black", linewidth=0.8)
        for row, style in lines.items():
            ax.axvline(float(table.loc[row, name]), color=GREY, linewidth=1.2, linestyle=style, label=row)
        known = METRICS.get(name)
        ax.set_title(known.label if known else name, fontsize=10)
        ax.set_xlabel(_HINT[known.best] if known else "", fontsize=8)
        ax.set_yticks(place, methods if axes is not None or number % 3 == 0 else [""] * len(methods))
        ax.invert_yaxis()
        ax.xaxis.set_major_locator(MaxNLocator(nbins=4))
        plain(ax)
    if lines and axes is None:
        handles, labels = drawn[0].get_legend_handles_labels()
        figure = figure_of(drawn[0])
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), frameon=False, fontsize=8)
    elif lines:
        drawn[0].legend(frameon=False, fontsize=8)
    finish(drawn[0], show, save, own)
    return drawn
