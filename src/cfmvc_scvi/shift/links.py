"""Between the mean log1p CP10k measured at some depth and the expression level, which does not depend on depth."""

from __future__ import annotations

__all__ = ["DepthCurve"]

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_LEVELS = np.concatenate([[0.0], np.geomspace(1e-3, 1e5, 255)])  # CP10k
# Trapezoid rule in w = log s: the integrand is analytic for |Im w| < pi/2, so that a step of 1/2 is exact to 1e-8.
_NODES = np.exp(np.arange(-30.0, 4.0, 0.5))
_NODE_WEIGHTS = 0.5 * np.exp(-_NODES)


@dataclass(frozen=True)
class DepthCurve:
    r"""Mean log1p CP10k of a group of cells as a function of the level (CP10k), increasing and invertible.

    E log1p(1e4 X / l) for X ~ NB(level l / 1e4, dispersion), averaged over the group's depths l, tabulated and
    interpolated. A sparse gene's mean log1p grows with depth at the same level: only levels compare across groups of
    different depth.

    Parameters
    ----------
    table
        Mean log1p CP10k at the tabulated levels, (groups, points); NaN for a group without cells.
    """

    table: Array

    @classmethod
    def at(cls, depths: Array, dispersion: float) -> DepthCurve:
        r"""Curves of groups of given depths.

        By Frullani's integral and the negative binomial's Laplace transform, with a = 1e4 / l,

            E log1p(a X) = int (1 - (1 + level (1 - exp(-a s)) / (a dispersion))^-dispersion) exp(-s) / s ds.

        Parameters
        ----------
        depths
            Quantiles of the cells' total counts, (groups, quantiles).
        dispersion
            Inverse dispersion theta; the curve hardly depends on it.
        """
        per_count = 1e4 / depths[:, None, :]
        table = np.zeros((len(depths), len(_LEVELS)))
        for node, weight in zip(_NODES, _NODE_WEIGHTS, strict=True):
            exponent = _LEVELS[:, None] * (-np.expm1(-per_count * node) / (per_count * dispersion))
            table -= weight * np.expm1(-dispersion * np.log1p(exponent)).mean(axis=2)
        return cls(table)

    def log_mean(self, level: Array) -> Array:
        """Mean log1p CP10k at a level in CP10k, (groups, genes)."""
        return np.stack([np.interp(row, _LEVELS, table) for row, table in zip(level, self.table, strict=True)])

    def level(self, log_mean: Array) -> Array:
        """Level in CP10k whose mean log1p CP10k is `log_mean`, (groups, genes); the inverse of `log_mean`."""
        return np.stack([np.interp(row, table, _LEVELS) for row, table in zip(log_mean, self.table, strict=True)])

    def slope(self, level: Array) -> Array:
        """Derivative of the mean log1p CP10k by the level, (groups, genes)."""
        slopes = np.gradient(self.table, _LEVELS, axis=1)
        return np.stack([np.interp(row, _LEVELS, slope) for row, slope in zip(level, slopes, strict=True)])
