"""What predictions need of the trained networks: four functions of arrays, whatever runs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from cfmvc_scvi.config import SolverConfig

__all__ = ["Inputs", "Networks", "Solved"]

Array = NDArray[np.float64]
Inputs = Mapping[str, NDArray]
"""What the networks read of cells beside counts: batch, label, covariates, `(cells, columns)` each, by registry key."""


@dataclass(frozen=True)
class Solved:
    """End of an ODE: the state `(cells, dims)`, and how often the velocity was evaluated."""

    state: Array
    n_evaluations: int


class Networks(Protocol):
    """Trained networks in double precision, each cell a function of its own input.

    The last bits of a matrix product depend on the size of the minibatch, and in single precision they would now and
    then decide whether a count is drawn.

    Attributes
    ----------
    n_intrinsic, n_technical
        Dimensions of the two blocks of the latent.
    location, scale
        Of the flow's coordinates u = (z_intrinsic - location) / scale.
    """

    n_intrinsic: int
    n_technical: int
    location: Array
    scale: float

    def posterior(self, counts: sp.csr_matrix, inputs: Inputs) -> tuple[Array, Array]:
        """Return mean and standard deviation of the latent of cells, `(cells, n_intrinsic + n_technical)` each."""

    def technical(self, counts: sp.csr_matrix, inputs: Inputs) -> Array:
        """Return the mean of the technical latent at the depth of `counts` in the batch of `inputs`."""

    def fractions(self, z: Array, inputs: Inputs) -> Array:
        """Return the expected share of each gene in the counts of each cell, `(cells, genes)`."""

    def solve(
        self,
        state: Array,
        design: Array,
        context: Array,
        *,
        backwards: bool,
        solver: SolverConfig,
        guidance_scale: float,
    ) -> Solved:
        """Follow the velocity of each cell's condition from path time 0 to 1, or backwards; NonFiniteError if it ends.

        `state` `(cells, dims)`, `design` `(cells, perturbations)`, `context` `(cells, features)`.
        """
