"""Error of predictions against the trust put in them beforehand."""

from __future__ import annotations

__all__ = ["trust"]

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike
from scipy.stats import spearmanr

from cfmvc_scvi.errors import DataError, NonFiniteError
from cfmvc_scvi.pl._labels import label_points
from cfmvc_scvi.pl._style import ROLES, finish, new_axes, plain


def trust(
    score: ArrayLike,
    error: ArrayLike,
    names: Sequence[str] | None = None,
    *,
    xlabel: str = "trust score, before the truth was seen",
    ylabel: str = "error",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Draw the error of each prediction against its trust score, with Spearman's rank correlation above.

    A trust score is of use if errors fall as it rises: a correlation near -1.

    Parameters
    ----------
    score, error
        One of each per prediction, (predictions,); a higher score is more trust, a higher error a worse prediction.
    names
        Of the predictions, (predictions,), written beside the dots where there is room; None writes none.
    xlabel, ylabel
        Labels of the axes.
    ax
        Axes to draw on; None makes a figure.
    show
        Show the figure now; None does so where matplotlib is interactive, unless axes are given.
    save
        File to save the figure to.

    Returns
    -------
    The axes. With fewer than three predictions, or scores or errors that are all the same, no correlation is given.

    Raises
    ------
    DataError
        If the shapes differ or there is no prediction.
    NonFiniteError
        If a score or an error is NaN or infinite.

    Examples
    --------
    >>> from cfmvc_scvi import pl
    >>> ax = pl.trust([0.9, 0.7, 0.4], [0.1, 0.2, 0.5], ["B cells", "T cells", "monocytes"])
    """
    scores, errors = np.asarray(score, dtype=float), np.asarray(error, dtype=float)
    n_names = len(scores) if names is None else len(names)
    if scores.ndim != 1 or scores.shape != errors.shape or n_names != len(scores) or len(scores) == 0:
        raise DataError(f"scores {scores.shape}, errors {errors.shape}, {n_names} names; give one of each.")
    n_broken = int((~np.isfinite(scores) | ~np.isfinite(errors)).sum())
    if n_broken:
        raise NonFiniteError(f"{n_broken} of {len(scores)} scores or errors are NaN or infinite.")
    ax, own = new_axes(ax, (4.4, 3.4))
    ax.scatter(scores, errors, s=28, color=ROLES["predicted"], alpha=0.8, linewidths=0, zorder=2)
    if len(scores) > 2 and np.ptp(scores) > 0 and np.ptp(errors) > 0:
        rho = float(spearmanr(scores, errors).statistic)
        ax.set_title(f"Spearman {rho:.2f}, n = {len(scores)}", fontsize=9, loc="left")
    ax.set_xlabel(xlabel, fontsize=9)
    ax.set_ylabel(ylabel, fontsize=9)
    plain(ax)
    if names is not None:
        ax.margins(0.08)
        label_points(ax, np.column_stack([scores, errors]), {i: str(name) for i, name in enumerate(names)})
    finish(ax, show, save, own)
    return ax
