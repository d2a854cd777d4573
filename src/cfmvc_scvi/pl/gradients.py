"""Gradients over layers and steps of training."""

from __future__ import annotations

__all__ = ["gradients"]

import os
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.pl._style import colours, figure_of, finish, panels, plain

_STAGES = {"representation": "", "flow": "flow_", "joint": "joint_"}
_DECADES = 4.0  # shown below the largest value


def gradients(
    history: Mapping[str, pd.DataFrame],
    *,
    stage: str | None = None,
    axes: Sequence[Axes] | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> list[Axes]:
    """Draw the gradients of a stage: norms of layers over steps as a heat map, and of the module's parts as lines.

    Parameters
    ----------
    history
        What `callbacks.GradientMonitor` recorded, as in ``model.history``.
    stage
        ``"representation"``, ``"flow"`` or ``"joint"``; None is the last of them that was recorded.
    axes
        Two axes, for the heat map and for the lines; None makes a figure.
    show
        Show the figure now; None does so where matplotlib is interactive, unless axes are given.
    save
        File to save the figure to.

    Returns
    -------
    The two axes.

    Raises
    ------
    DataError
        If no gradients of that stage were recorded.

    Examples
    --------
    >>> import pandas as pd
    >>> from cfmvc_scvi import pl
    >>> norms = pd.DataFrame({"any": [1.0, 0.5, 0.2]}, index=[0, 10, 20])
    >>> axes = pl.gradients({"gradient_norm/decoder.out": norms, "gradient_flow/decoder": norms})
    """
    tables = {name: _table(history, name, "gradient_norm") for name in _STAGES}
    recorded = [name for name, table in tables.items() if len(table)]
    chosen = stage if stage is not None else next(reversed(recorded), "")
    if chosen not in recorded:
        known = f"recorded: {', '.join(recorded)}" if recorded else "none were recorded"
        raise DataError(
            f"no gradients of stage {stage!r}; {known}. Train with callbacks=[cfmvc_scvi.callbacks.GradientMonitor()]."
        )
    drawn, own = panels(axes, 2, (5.0, max(2.4, 0.22 * tables[chosen].shape[1])), n_columns=2)
    _heat_map(drawn[0], tables[chosen])
    parts = _table(history, chosen, "gradient_flow")
    for name, colour in colours(list(parts.columns)).items():
        drawn[1].plot(parts.index, parts[name], color=colour, label=name)
    drawn[1].set_yscale("log")
    drawn[1].set_ylabel("norm of the gradient", fontsize=9)
    drawn[1].legend(frameon=False, fontsize=8)
    for ax in drawn:
        ax.set_xlabel("step", fontsize=9)
        ax.set_title(f"stage '{chosen}'", fontsize=10)
        plain(ax)
    finish(drawn[0], show, save, own)
    return drawn


def _table(history: Mapping[str, pd.DataFrame], stage: str, metric: str) -> pd.DataFrame:
    """Values `(steps, layers or parts)` of a metric."""
    pattern = re.compile(re.escape(f"{_STAGES[stage]}{metric}/") + "(.+)")
    found = {hit[1]: frame.iloc[:, 0] for key, frame in history.items() if (hit := pattern.fullmatch(key))}
    return pd.DataFrame(found).astype(float)


def _heat_map(ax: Axes, table: pd.DataFrame) -> None:
    values = table.to_numpy().T
    finite = values[np.isfinite(values) & (values > 0)]
    top = np.log10(finite.max()) if finite.size else 0.0
    with np.errstate(divide="ignore"):
        logs = np.maximum(np.log10(np.where(np.isfinite(values), values, np.nan)), top - _DECADES)
    steps = table.index.to_numpy(dtype=float)
    width = np.diff(steps).min() if len(steps) > 1 else 1.0
    extent = (steps[0] - width / 2, steps[-1] + width / 2, len(values) - 0.5, -0.5)
    image = ax.imshow(logs, aspect="auto", cmap="viridis", vmin=top - _DECADES, vmax=top, extent=extent)
    names = [str(name) for name in table.columns]
    shared = names[0].partition(".")[0] + "."
    if all(name.startswith(shared) for name in names):  # the panel says which stage it is
        names = [name.removeprefix(shared) for name in names]
    ax.set_yticks(range(len(values)), names, fontsize=7)
    bar = figure_of(ax).colorbar(image, ax=ax, shrink=0.7)
    bar.set_label("log10 norm of the gradient", fontsize=8)
