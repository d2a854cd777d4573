"""Simple predictions that any model must beat: shifts, resampled and re-used real cells.

All share `fit(train)` and `predict(control_counts, condition, context, n_cells, rng)`; what they know of the held-out
context is its control cells. A shift is the difference of mean log1p CP10k of perturbed and control cells of one
context.
"""

from __future__ import annotations

__all__ = [
    "Baseline",
    "CountCoupledNearestShift",
    "FoldChangeResampling",
    "MeanOfOtherPerturbations",
    "MeanShift",
    "NearestContextShift",
    "NoChange",
    "PooledOtherContexts",
]

from abc import ABC, abstractmethod
from typing import Self

import numpy as np
import scipy.sparse as sp
from numpy.random import Generator
from numpy.typing import NDArray

from cfmvc_scvi.benchmark._coupling import bulk_rate, match_mean, moment_dispersion, superpose
from cfmvc_scvi.benchmark.cells import Prediction, TrainingCells, draw_cells
from cfmvc_scvi.errors import DataError, NotTrainedError
from cfmvc_scvi.metrics import log_normalize

Array = NDArray[np.float64]


class Baseline(ABC):
    """A prediction of perturbed cells from control cells of the same context and from other groups of cells."""

    def __init__(self) -> None:
        self._train: TrainingCells | None = None

    def fit(self, train: TrainingCells) -> Self:
        """Keep the training cells; the group to be predicted must not be among them."""
        self._train = train
        return self

    @property
    def train(self) -> TrainingCells:
        """The training cells; NotTrainedError before `fit`."""
        if self._train is None:
            raise NotTrainedError(f"{type(self).__name__} has no training cells: call fit() first.")
        return self._train

    @abstractmethod
    def predict(
        self, control_counts: sp.csr_matrix, condition: str, context: str, n_cells: int, rng: Generator
    ) -> Prediction:
        """Predict `n_cells` cells of (condition, context).

        Parameters
        ----------
        control_counts
            UMI counts of control cells of the context (cells, genes).
        condition, context
            Names of the held-out group.
        n_cells
            Wanted cells; there are fewer if there are too few to start from, for none is used twice.
        rng
            Draws the cells and the noise.

        Raises
        ------
        NotTrainedError
            Before `fit`.
        UnknownConditionError
            If the training cells have nothing to learn `condition` from.
        """

    def nearest_context(self, control_counts: sp.csr_matrix, condition: str, context: str) -> str:
        """Other context with `condition` whose control profile is nearest: Euclidean, mean log1p CP10k."""
        own = log_normalize(control_counts).mean(axis=0)
        others = self.train.other_contexts(condition, context)
        return min(others, key=lambda other: float(np.linalg.norm(self.train.profile(self.train.control, other) - own)))

    def shift(self, condition: str, context: str) -> Array:
        """Shift by `condition` in a training context, (genes,)."""
        return self.train.profile(condition, context) - self.train.profile(self.train.control, context)


class NoChange(Baseline):
    """Control cells as they are: the floor."""

    def predict(
        self, control_counts: sp.csr_matrix, condition: str, context: str, n_cells: int, rng: Generator
    ) -> Prediction:
        """Draw control cells without replacement."""
        return Prediction(draw_cells(control_counts, n_cells, rng))


class _Shift(Baseline):
    """Control cells plus one shift in log1p CP10k, clipped at zero."""

    @abstractmethod
    def _shift(self, control_counts: sp.csr_matrix, condition: str, context: str) -> Array: ...

    def predict(
        self, control_counts: sp.csr_matrix, condition: str, context: str, n_cells: int, rng: Generator
    ) -> Prediction:
        """Draw control cells without replacement and shift them; values are log1p CP10k."""
        cells = log_normalize(draw_cells(control_counts, n_cells, rng))
        shift = self._shift(control_counts, condition, context)
        return Prediction(np.maximum(cells + shift, 0.0), "log1p_cp10k")


class MeanShift(_Shift):
    """Mean shift over the other contexts, each with the same weight."""

    def _shift(self, control_counts: sp.csr_matrix, condition: str, context: str) -> Array:
        others = self.train.other_contexts(condition, context)
        return np.mean([self.shift(condition, other) for other in others], axis=0)


class NearestContextShift(_Shift):
    """Shift of the one other context whose control profile is nearest."""

    def _shift(self, control_counts: sp.csr_matrix, condition: str, context: str) -> Array:
        return self.shift(condition, self.nearest_context(control_counts, condition, context))


class MeanOfOtherPerturbations(_Shift):
    """Mean shift over the other perturbations of the same context: what is not specific to the perturbation."""

    def _shift(self, control_counts: sp.csr_matrix, condition: str, context: str) -> Array:
        others = self.train.other_conditions(condition, context)
        return np.mean([self.shift(other, context) for other in others], axis=0)


class PooledOtherContexts(Baseline):
    """Real perturbed cells of the other contexts, pooled."""

    def predict(
        self, control_counts: sp.csr_matrix, condition: str, context: str, n_cells: int, rng: Generator
    ) -> Prediction:
        """Draw from the pooled cells without replacement."""
        others = self.train.other_contexts(condition, context)
        pool = sp.vstack([self.train.group(condition, other) for other in others], format="csr")
        return Prediction(draw_cells(pool, n_cells, rng))


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


class CountCoupledNearestShift(Baseline):
    """Nearest-context shift realised on the cells' own counts, matched in mean log1p CP10k: the baseline to fear.

    The goal of each gene is max(0, control profile + shift of the nearest context); counts are thinned below and
    gamma-Poisson counts added above (`benchmark._coupling.match_mean`).

    Parameters
    ----------
    dispersion
        Inverse dispersion theta of added counts; taken from the moments of the control cells, gene by gene, if not
        given. Those make genes that turn on over-dispersed; 1 is a stronger baseline.
    """

    def __init__(self, dispersion: float | None = None) -> None:
        super().__init__()
        if dispersion is not None and not dispersion > 0:
            raise DataError(f"dispersion is {dispersion}; it must be positive.")
        self.dispersion = dispersion

    def predict(
        self, control_counts: sp.csr_matrix, condition: str, context: str, n_cells: int, rng: Generator
    ) -> Prediction:
        """Draw control cells without replacement and move their counts to the goal."""
        control = control_counts.toarray().astype(np.float64)
        shift = self.shift(condition, self.nearest_context(control_counts, condition, context))
        goal = np.maximum(log_normalize(control).mean(axis=0) + shift, 0.0)
        theta = moment_dispersion(control) if self.dispersion is None else np.full_like(goal, self.dispersion)
        cells = draw_cells(control_counts, n_cells, rng).toarray().astype(np.float64)
        return Prediction(sp.csr_matrix(match_mean(cells, goal, theta, rng)))
