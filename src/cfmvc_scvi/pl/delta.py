"""Predicted against true effect, gene by gene."""

from __future__ import annotations

__all__ = ["delta"]

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from cfmvc_scvi.errors import DataError, NonFiniteError
from cfmvc_scvi.pl._labels import label_points
from cfmvc_scvi.pl._style import GREY, ROLES, finish, new_axes, plain


def delta(
    predicted_delta: ArrayLike,
    true_delta: ArrayLike,
    genes: Sequence[str] | None = None,
    n_labels: int = 10,
    *,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    r"""Draw the predicted effect on each gene against the true one.

    The corner gives Pearson's r and :math:`R^2 = 1 - \sum (\hat\Delta - \Delta)^2 / \sum (\Delta - \bar\Delta)^2`,
    which, unlike r, also falls if all effects are too small. On the dashed line predictions are exact.

    Parameters
    ----------
    predicted_delta, true_delta
        Difference of mean log1p CP10k from control cells, (genes,).
    genes
        Names of the genes, (genes,); None writes no names.
    n_labels
        Genes of largest true effect that are highlighted and named; fewer names where there is no room.
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
        If the shapes differ, or the true effects are all the same.
    NonFiniteError
        If an effect is NaN or infinite.

    Examples
    --------
    >>> import numpy as np
    >>> from cfmvc_scvi import pl
    >>> ax = pl.delta(np.array([0.9, 0.1, -0.4]), np.array([1.0, 0.0, -0.5]), genes=["ISG15", "ACTB", "CD74"])
    """
    predicted, truth = _checked(predicted_delta, true_delta, genes)
    ax, own = new_axes(ax, (4.0, 4.0))
    low, high = min(predicted.min(), truth.min()), max(predicted.max(), truth.max())
    margin = 0.06 * (high - low)
    limits = (low - margin, high + margin)
    for line in (ax.axhline, ax.axvline):
        line(0.0, color="#dddddd", linewidth=0.8, zorder=0)
    ax.plot(limits, limits, color=GREY, linewidth=1.0, linestyle="--", zorder=1, label="exact")
    ax.scatter(truth, predicted, s=10, color=ROLES["true"], alpha=0.5, linewidths=0, zorder=2, rasterized=True)
    ax.set(xlim=limits, ylim=limits, aspect="equal")
    ax.set_title(title or "", fontsize=10)
    ax.set_xlabel("true effect (Δ mean log1p CP10k)", fontsize=9)
    ax.set_ylabel("predicted effect", fontsize=9)
    residual = ((predicted - truth) ** 2).sum()
    r = np.corrcoef(predicted, truth)[0, 1] if predicted.std() > 0 else 0.0
    r2 = 1.0 - residual / ((truth - truth.mean()) ** 2).sum()
    corner = ax.text(0.03, 0.97, f"r = {r:.3f}\n$R^2$ = {r2:.3f}", transform=ax.transAxes, va="top", fontsize=9)
    plain(ax)
    if genes is not None:
        top = np.argsort(-np.abs(truth), kind="stable")[:n_labels]
        ax.scatter(truth[top], predicted[top], s=14, color=ROLES["predicted"], linewidths=0, zorder=3, rasterized=True)
        points = np.column_stack([truth, predicted])
        label_points(ax, points, {int(i): str(genes[i]) for i in top}, [corner])
    finish(ax, show, save, own)
    return ax


def _checked(
    predicted_delta: ArrayLike, true_delta: ArrayLike, genes: Sequence[str] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    predicted, truth = np.asarray(predicted_delta, dtype=float), np.asarray(true_delta, dtype=float)
    if predicted.ndim != 1 or predicted.shape != truth.shape or (genes is not None and len(genes) != len(truth)):
        names = "no" if genes is None else len(genes)
        raise DataError(
            f"effects are {predicted.shape} and {truth.shape}, with {names} names; give one of each per gene."
        )
    n_broken = int((~np.isfinite(predicted) | ~np.isfinite(truth)).sum())
    if n_broken:
        raise NonFiniteError(f"{n_broken} of {len(truth)} genes have an effect that is NaN or infinite.")
    if len(truth) < 2 or np.ptp(truth) == 0:
        raise DataError(f"the true effects of {len(truth)} genes are all the same: there is nothing to correlate with.")
    return predicted, truth
