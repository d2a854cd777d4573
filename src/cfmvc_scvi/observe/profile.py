"""How the expected rate of each cell stands to the mean of its context, gene by gene."""

from __future__ import annotations

__all__ = ["relative_profile"]

import numpy as np

from cfmvc_scvi.observe._counts import Array


def relative_profile(rate: Array, mean_rate: Array, weight: float | Array, largest: float) -> Array:
    """Relative rate of each cell and gene: K_ig = 1 + weight * (min(rate_ig / mean_g, largest) - 1).

    Parameters
    ----------
    rate
        Expected rates of the cells, (cells, genes), >= 0.
    mean_rate
        Their mean over the reference cells of the context, (genes,); genes at zero get 1.
    weight
        Share of the differences between cells that is kept, in [0, 1], one for all or (genes,).
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
