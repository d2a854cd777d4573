"""How the depth of cells changes with a perturbation."""

from __future__ import annotations

__all__ = ["depth_changes"]

import numpy as np
from numpy.typing import NDArray

from cfmvc_scvi.shift.pseudobulk import PseudoBulk

Array = NDArray[np.float64]


def depth_changes(control: PseudoBulk, perturbed: PseudoBulk) -> Array:
    r"""Expected change of the mean log depth of cells in every context.

    Where the perturbation was observed, its measured change r; else the mean of those of the other contexts. Either is
    shortened to :math:`r \max(0, 1 - v / r^2)`, the non-negative garrote (Breiman 1995, Technometrics 37:373), with v
    its sampling variance, which for a mean of several contexts holds what they differ by. Little that is known of the
    depth is so taken for no change.

    Parameters
    ----------
    control
        Pseudo-bulks of the control cells, one group per context.
    perturbed
        Pseudo-bulks of the perturbed cells, in the same order; groups without cells where unobserved.

    Returns
    -------
    Natural log, (contexts,); zero where nothing was observed.
    """
    seen = perturbed.n_cells > 0
    change = np.zeros(len(seen))
    if not seen.any():
        return change
    known, response = control.take(seen), perturbed.take(seen)
    (before, after), spreads = zip(*(_log_depth(bulk) for bulk in (known, response)), strict=True)
    # a few cells tell little of their own spread, and one nothing
    measured, noise = after - before, np.maximum(*spreads) * (1 / known.n_cells + 1 / response.n_cells)
    scatter = max(measured.var(ddof=1), noise.mean()) if len(measured) > 1 else noise[0]
    change[seen] = _garrote(measured, noise)
    change[~seen] = _garrote(measured.mean(), scatter / len(measured))
    return change


def _log_depth(bulk: PseudoBulk) -> tuple[Array, Array]:
    """Mean log depth of the cells of each group, and its variance."""
    logs = np.log(np.maximum(bulk.depth_quantiles, 1.0))
    return logs.mean(axis=1), logs.var(axis=1)


def _garrote(value: Array, noise: Array) -> Array:
    squared = np.maximum(value**2, np.finfo(float).tiny)
    return value * np.maximum(1 - noise / squared, 0.0)
