"""How the expected rate of each cell stands to the mean of its context, gene by gene."""

from __future__ import annotations

__all__ = ["cell_rates", "relative_profile"]

import numpy as np

from cfmvc_scvi.observe._counts import Array


def relative_profile(rate: Array, mean_rate: Array, weight: float, largest: float) -> Array:
    """Relative rate of each cell and gene: K_ig = 1 + weight * (min(rate_ig / mean_g, largest) - 1).

    Parameters
    ----------
    rate
        Expected rates of the cells, (cells, genes), >= 0.
    mean_rate
        Their mean over the reference cells of the context, (genes,); genes at zero get 1.
    weight
        Share of the differences between cells that is kept, in [0, 1].
    largest
        Bound of the relative rate.

    Returns
    -------
    Array (cells, genes), mean close to 1 over the reference cells.
    """
    result: Array = rate / np.where(mean_rate > 0, mean_rate, 1.0)
    np.minimum(result, largest, out=result)
    result[:, mean_rate <= 0] = 1.0
    result -= 1
    result *= weight
    result += 1
    return result


def cell_rates(share: Array, mean_share: Array, rate: Array, weight: float, largest: float) -> Array:
    """Rates of each cell, ``rate * relative_profile(share, mean_share, weight, largest)``, at a third of the cost.

    Parameters
    ----------
    share, mean_share, weight, largest
        As in `relative_profile`: expected rates of the cells, (cells, genes), and their mean, (genes,), in any unit.
    rate
        Counts per 10k of the context, (genes,).

    Returns
    -------
    Counts per 10k of each cell, (cells, genes).
    """
    known = mean_share > 0
    result: Array = share * np.where(known, weight * rate / np.where(known, mean_share, 1.0), 0.0)
    np.minimum(result, weight * largest * rate, out=result)
    rest = np.where(known, (1 - weight) * rate, rate)
    if rest.any():
        result += rest
    return result
