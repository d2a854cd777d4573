"""How the depth of cells changes with a perturbation."""

from __future__ import annotations

__all__ = ["depth_changes"]

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def depth_changes(depth_quantiles: Array, n_cells: NDArray[np.int64]) -> Array:
    r"""Expected change of the mean log depth of cells from control, under every condition in every context.

    Where a condition was seen in a context, its measured change; else the mean of its changes in the others. Either, r,
    is shortened to r S / (S + v), the posterior mean under a prior of variance S. v is the sampling variance of r, and
    S is what the squares of all such r are on average beyond it: empirical Bayes (Efron and Morris 1973, JASA 68:117),
    of one r alone the non-negative garrote (Breiman 1995, Technometrics 37:373). For means over contexts v also holds
    what contexts differ by, of all conditions that were seen in two or more. What noise explains is so taken for no
    change.

    Parameters
    ----------
    depth_quantiles
        Of the cells' total counts, at evenly spaced levels, (conditions, contexts, levels); condition 0 is control.
    n_cells
        Cells of each group, (conditions, contexts); those of control > 0. Quantiles of groups without cells are unused.

    Returns
    -------
    Natural log, (conditions, contexts); zero for control and for conditions without cells.
    """
    seen = n_cells > 0
    logs = np.log(np.maximum(np.where(seen[..., None], depth_quantiles, 1.0), 1.0))
    mean, spread = logs.mean(axis=2), logs.var(axis=2)
    n = np.maximum(n_cells, 1)
    # a few cells tell little of their own spread, and one nothing
    noise = np.maximum(spread, spread[0]) * (1 / n + 1 / n[0])
    seen[0] = False
    own = np.where(seen, mean - mean[0], 0.0)
    result = _shortened(own, noise, seen)
    count = seen.sum(axis=1)
    size = np.maximum(count, 1)
    common, common_noise = own.sum(axis=1) / size, (noise * seen).sum(axis=1) / size
    between = np.where(seen, own - common[:, None], 0.0)
    excess = (between**2).sum() - ((count - 1) * common_noise)[count > 1].sum()
    scatter = max(excess / max((count - 1)[count > 1].sum(), 1), 0.0)
    lent = _shortened(common, (scatter + common_noise) / size, count > 0)
    lent[0] = 0.0
    return np.where(seen, result, lent[:, None])


def _shortened(value: Array, noise: Array, known: NDArray[np.bool_]) -> Array:
    """Posterior mean of values, zero where not known, of which those known give the prior's variance."""
    if not known.any():
        return np.zeros_like(value)
    signal = max(float((value**2 - noise)[known].mean()), 0.0)
    return value * (signal / np.where(known, np.maximum(signal + noise, np.finfo(float).tiny), 1.0))
