"""One shift for all cells of a group, from groups that were seen."""

from __future__ import annotations

__all__ = [
    "AdditiveShift",
    "DoseInterpolation",
    "MeanOfOtherPerturbations",
    "MeanShift",
    "NearestContextShift",
    "Shift",
]

from abc import abstractmethod

import numpy as np
import scipy.sparse as sp
from numpy.random import Generator

from cfmvc_scvi.benchmark.baselines.base import Array, Baseline
from cfmvc_scvi.benchmark.cells import Prediction, draw_cells
from cfmvc_scvi.benchmark.fold import split_condition
from cfmvc_scvi.errors import UnknownConditionError
from cfmvc_scvi.metrics import log_normalize


class Shift(Baseline):
    """Control cells plus one shift in log1p CP10k, clipped at zero."""

    @abstractmethod
    def expected_shift(self, control_counts: sp.csr_matrix, condition: str, context: str) -> Array:
        """Shift that the cells of (condition, context) are expected to have, (genes,), log1p CP10k."""

    def predict(
        self, control_counts: sp.csr_matrix, condition: str, context: str, n_cells: int, rng: Generator
    ) -> Prediction:
        """Draw control cells without replacement and shift them; values are log1p CP10k."""
        cells = log_normalize(draw_cells(control_counts, n_cells, rng))
        shift = self.expected_shift(control_counts, condition, context)
        return Prediction(np.maximum(cells + shift, 0.0), "log1p_cp10k")


class MeanShift(Shift):
    """Mean shift over the other contexts, each with the same weight."""

    def expected_shift(self, control_counts: sp.csr_matrix, condition: str, context: str) -> Array:
        """Mean over the other contexts."""
        others = self.train.other_contexts(condition, context)
        return np.mean([self.shift(condition, other) for other in others], axis=0)


class NearestContextShift(Shift):
    """Shift of the one other context whose control profile is nearest."""

    def expected_shift(self, control_counts: sp.csr_matrix, condition: str, context: str) -> Array:
        """Shift of the nearest context."""
        return self.shift(condition, self.nearest_context(control_counts, condition, context))


class MeanOfOtherPerturbations(Shift):
    """Mean shift over the other perturbations of the same context: what is not specific to the perturbation."""

    def expected_shift(self, control_counts: sp.csr_matrix, condition: str, context: str) -> Array:
        """Mean over the other perturbations of the context."""
        others = self.train.other_conditions(condition, context)
        return np.mean([self.shift(other, context) for other in others], axis=0)


class DoseInterpolation(Shift):
    """Shift between those of the neighbouring doses of the same perturbation, beyond the largest dose that of it.

    Linear in log(1 + dose / smallest dose), with the control cells as dose 0; from the context itself if it has another
    dose, else the mean of what the other contexts give.
    """

    def expected_shift(self, control_counts: sp.csr_matrix, condition: str, context: str) -> Array:
        """Interpolate in the context, or in the others."""
        (perturbation, dose), *others = split_condition(condition, dosed=self.train.dosed).items()
        seen = {str(name): self.train.doses(perturbation, str(name)) for name in np.unique(self.train.context)}
        seen = {name: doses for name, doses in seen.items() if doses}
        if dose is None or others or not seen:
            raise UnknownConditionError(f"There is no dose of '{condition}' to interpolate from in any context.")
        contexts = [context] if context in seen else list(seen)
        return np.mean([self._interpolated(dose, seen[name], name) for name in contexts], axis=0)

    def _interpolated(self, dose: float, seen: dict[float, str], context: str) -> Array:
        known = np.array(sorted(seen))
        shifts = np.stack([np.zeros(self.train.counts.shape[1]), *(self.shift(seen[d], context) for d in known)])
        places, wanted = (np.log1p(np.append(0.0, known) / known[0]), np.log1p(dose / known[0]))
        above = min(int(np.searchsorted(places, wanted)), len(places) - 1)
        share = min((wanted - places[above - 1]) / (places[above] - places[above - 1]), 1.0)
        return (1 - share) * shifts[above - 1] + share * shifts[above]


class AdditiveShift(Shift):
    """Sum of the shifts of the parts of a combination: no interaction in log1p CP10k.

    The shift of a part is that in the context itself if it was seen there, else its mean over the other contexts, else
    that of `DoseInterpolation`.
    """

    def expected_shift(self, control_counts: sp.csr_matrix, condition: str, context: str) -> Array:
        """Add the shifts of the parts."""
        return np.sum([self._part(part, context) for part in self.train.parts(condition).values()], axis=0)

    def _part(self, part: str, context: str) -> Array:
        if self.train.has(part, context):
            return self.shift(part, context)
        if self.train.dosed and part not in self.train.condition:
            return DoseInterpolation().fit(self.train).expected_shift(self.train.counts[:0], part, context)
        return np.mean([self.shift(part, other) for other in self.train.other_contexts(part, context)], axis=0)
