"""Losses over the epochs of training."""

from __future__ import annotations

__all__ = ["curves", "history"]

import os
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.pl._style import ROLES, finish, panels, plain

_PART = re.compile(r"_?(train|validation)(?=_|$)")
_STAGES = {"flow ": "flow", "joint ": "joint stage"}
_LONG = 20  # epochs
_FIRST = 15  # one of so many epochs at the start may leave the axes
_COLOURS = {"train": ROLES["true"], "validation": ROLES["predicted"]}


def history(
    history: Mapping[str, pd.DataFrame],
    *,
    axes: Sequence[Axes] | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> list[Axes]:
    """Draw what was recorded in training, one panel for each loss, training and validation cells together.

    Values of single minibatches (``..._step``) and constants such as the weight of the KL term are left out.

    Parameters
    ----------
    history
        Name of a metric to a frame with one column and one row per epoch, as of ``model.history``.
    axes
        One axes for each panel; None makes a figure.
    show
        Show the figure now; None does so where matplotlib is interactive, unless axes are given.
    save
        File to save the figure to.

    Returns
    -------
    The axes of the panels.

    Raises
    ------
    DataError
        If nothing is left to draw, or there are not as many axes as panels.

    Examples
    --------
    >>> import pandas as pd
    >>> from cfmvc_scvi import pl
    >>> axes = pl.history({"elbo_train": pd.DataFrame({"elbo_train": [9.0, 5.0, 4.0]})})
    """
    found = curves(history)
    if not found:
        raise DataError(f"none of the {len(history)} metrics changes over epochs; train the model first.")
    drawn, own = panels(axes, len(found), (3.0, 2.4), n_columns=3)
    for ax, (name, parts) in zip(drawn, found.items(), strict=True):
        for part, curve in parts.items():
            marker = "o" if len(curve) == 1 else None
            ax.plot(curve.index, curve.to_numpy(), color=_COLOURS[part], marker=marker, label=part)
        if min(map(len, parts.values())) >= _LONG:  # the first epochs would hide all others
            late = np.concatenate([curve.to_numpy()[len(curve) // _FIRST :] for curve in parts.values()])
            margin = 0.05 * np.ptp(late)
            ax.set_ylim(late.min() - margin, late.max() + margin)
        ax.set_title(name, fontsize=10)
        ax.set_xlabel(f"epoch of the {_stage(name)}", fontsize=9)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        plain(ax)
        if len(parts) > 1:
            ax.legend(frameon=False, fontsize=8)
    finish(drawn[0], show, save, own)
    return drawn


def curves(history: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, pd.Series]]:
    """Curves by loss and by part of the data, without duplicates."""
    result: dict[str, dict[str, pd.Series]] = {}
    for key, frame in history.items():
        found = _PART.search(key)
        if found is None or key.endswith("_step"):
            continue
        curve = pd.to_numeric(frame.iloc[:, 0], errors="raise").astype(float).dropna()
        name = _PART.sub("", key).removesuffix("_epoch").strip("_").replace("_", " ")
        name = name.replace("elbo", "negative ELBO").replace("kl local", "KL").replace("kl global", "global KL")
        known = [other for parts in result.values() for part, other in parts.items() if part == found[1]]
        if len(curve) == 0 or (len(curve) > 1 and np.ptp(curve) == 0) or any(_same(curve, other) for other in known):
            continue
        result.setdefault(name, {})[found[1]] = curve
    return result


def _stage(name: str) -> str:
    """Stage of training that a loss belongs to; those of scvi-tools' own plan have no prefix."""
    return next((stage for prefix, stage in _STAGES.items() if name.startswith(prefix)), "representation")


def _same(curve: pd.Series, other: pd.Series) -> bool:
    return len(curve) == len(other) and np.allclose(curve, other, rtol=1e-6)
