"""The interface that all baselines share.

What a baseline knows of the held-out context is its control cells. A shift is the difference of mean log1p CP10k of
perturbed and control cells of one context.
"""

from __future__ import annotations

__all__ = ["Array", "Baseline"]

from abc import ABC, abstractmethod
from typing import Self

import numpy as np
import scipy.sparse as sp
from numpy.random import Generator
from numpy.typing import NDArray

from cfmvc_scvi.benchmark.cells import Prediction, TrainingCells
from cfmvc_scvi.errors import NotTrainedError
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

    @property
    def description(self) -> str:
        """Class and parameters, as text."""
        parts = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        shown = [f"{name}={getattr(value, 'description', repr(value))}" for name, value in parts.items()]
        return f"{type(self).__name__}({', '.join(shown)})"

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
