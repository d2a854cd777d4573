"""Predicted counts, made from the control cells' own counts."""

from __future__ import annotations

__all__ = ["CountCoupled", "CountCoupledNearestShift", "FoldChangeResampling"]

import numpy as np
import scipy.sparse as sp
from numpy.random import Generator

from cfmvc_scvi.benchmark.baselines._coupling import bulk_rate, match_mean, moment_dispersion, superpose
from cfmvc_scvi.benchmark.baselines.base import Array, Baseline
from cfmvc_scvi.benchmark.baselines.shifts import NearestContextShift, Shift
from cfmvc_scvi.benchmark.cells import Prediction, draw_cells
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.metrics import log_normalize


class FoldChangeResampling(Baseline):
    """Real control counts at the geometric mean fold change of other contexts, by thinning and gamma-Poisson addition.

    The fold change of a context is (bulk CP10k of perturbed + pseudocount) / (bulk CP10k of control + pseudocount). A
    gene without counts in the control cells stays without.

    Parameters
    ----------
    pseudocount
        In counts per 10k; positive.
    dispersion
        Inverse dispersion theta of added counts; positive.
    """

    def __init__(self, pseudocount: float = 0.02, dispersion: float = 1.0) -> None:
        super().__init__()
        if not min(pseudocount, dispersion) > 0:
            raise DataError(f"pseudocount is {pseudocount} and dispersion {dispersion}; both must be positive.")
        self.pseudocount, self.dispersion = pseudocount, dispersion

    def _log_fold_change(self, condition: str, context: str) -> Array:
        perturbed, control = (
            bulk_rate(self.train.group(name, context).toarray()) for name in (condition, self.train.control)
        )
        return np.log((perturbed + self.pseudocount) / (control + self.pseudocount))

    def predict(
        self, control_counts: sp.csr_matrix, condition: str, context: str, n_cells: int, rng: Generator
    ) -> Prediction:
        """Draw control cells without replacement and resample their counts with fresh noise."""
        others = self.train.other_contexts(condition, context)
        fold_change = np.exp(np.mean([self._log_fold_change(condition, other) for other in others], axis=0))
        cells = draw_cells(control_counts, n_cells, rng).toarray().astype(np.float64)
        return Prediction(sp.csr_matrix(superpose(cells, fold_change, self.dispersion, rng)))


class CountCoupled(Baseline):
    """A shift realised on the cells' own counts, matched in mean log1p CP10k.

    The goal of each gene is max(0, control profile + shift); counts are thinned below and gamma-Poisson counts added
    above.

    Parameters
    ----------
    shift
        Baseline whose expected shift is realised.
    dispersion
        Inverse dispersion theta of added counts; taken from the moments of the control cells, gene by gene, if None.
        Those make genes that turn on over-dispersed; 1 is a stronger baseline.
    """

    def __init__(self, shift: Shift, dispersion: float | None = None) -> None:
        super().__init__()
        if dispersion is not None and not dispersion > 0:
            raise DataError(f"dispersion is {dispersion}; it must be positive.")
        self.of, self.dispersion = shift, dispersion

    def predict(
        self, control_counts: sp.csr_matrix, condition: str, context: str, n_cells: int, rng: Generator
    ) -> Prediction:
        """Draw control cells without replacement and move their counts to the goal."""
        control = control_counts.toarray().astype(np.float64)
        shift = self.of.fit(self.train).expected_shift(control_counts, condition, context)
        goal = np.maximum(log_normalize(control).mean(axis=0) + shift, 0.0)
        theta = moment_dispersion(control) if self.dispersion is None else np.full_like(goal, self.dispersion)
        cells = draw_cells(control_counts, n_cells, rng).toarray().astype(np.float64)
        return Prediction(sp.csr_matrix(match_mean(cells, goal, theta, rng)))


class CountCoupledNearestShift(CountCoupled):
    """`CountCoupled` of the `NearestContextShift`: the baseline to fear.

    Parameters
    ----------
    dispersion
        As of `CountCoupled`.
    """

    def __init__(self, dispersion: float | None = None) -> None:
        super().__init__(NearestContextShift(), dispersion)
