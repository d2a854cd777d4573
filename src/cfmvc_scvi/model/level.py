"""What is expected of a condition in a context."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Level"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Level:
    """Expected log1p CP10k of a (condition, context).

    Attributes
    ----------
    mean, sd
        `(genes,)` posterior mean and standard deviation.
    observed
        Whether cells of the group were seen in training.
    partner_conditions
        Codes of the seen conditions whose cells lend their noise.
    partner_shares
        Share of each of them, > 0; equal if empty.
    extrapolated
        Whether a dose lies beyond those seen.
    depth_change
        Expected change of the cells' mean log depth from that of control cells.
    """

    mean: Array
    sd: Array
    observed: bool
    partner_conditions: tuple[int, ...]
    extrapolated: bool = False
    partner_shares: tuple[float, ...] = ()
    depth_change: float = 0.0

    @property
    def partners(self) -> list[tuple[int, float]]:
        """Partner conditions with their shares."""
        shares = self.partner_shares or (1.0,) * len(self.partner_conditions)
        return list(zip(self.partner_conditions, shares, strict=True))
