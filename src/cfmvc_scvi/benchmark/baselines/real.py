"""Real cells as predictions."""

from __future__ import annotations

__all__ = ["NoChange", "PooledOtherContexts"]

import scipy.sparse as sp
from numpy.random import Generator

from cfmvc_scvi.benchmark.baselines.base import Baseline
from cfmvc_scvi.benchmark.cells import Prediction, draw_cells


class NoChange(Baseline):
    """Control cells as they are: the floor."""

    def predict(
        self, control_counts: sp.csr_matrix, condition: str, context: str, n_cells: int, rng: Generator
    ) -> Prediction:
        """Draw control cells without replacement."""
        return Prediction(draw_cells(control_counts, n_cells, rng))


class PooledOtherContexts(Baseline):
    """Real perturbed cells of the other contexts, pooled."""

    def predict(
        self, control_counts: sp.csr_matrix, condition: str, context: str, n_cells: int, rng: Generator
    ) -> Prediction:
        """Draw from the pooled cells without replacement."""
        others = self.train.other_contexts(condition, context)
        pool = sp.vstack([self.train.group(condition, other) for other in others], format="csr")
        return Prediction(draw_cells(pool, n_cells, rng))
