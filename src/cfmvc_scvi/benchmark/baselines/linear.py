"""A bilinear model of perturbations never seen, from features of their targets."""

from __future__ import annotations

__all__ = ["LinearPerturbation"]

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cfmvc_scvi.benchmark.baselines.base import Array
from cfmvc_scvi.benchmark.baselines.shifts import Shift
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.metrics import log_normalize


class LinearPerturbation(Shift):
    r"""PCA and ridge regression, :math:`Y \approx G W P^T + b`, within the context.

    Y are the shifts of the training perturbations (genes, perturbations), b their mean, G their first principal
    components (genes, K), P features of the perturbations (perturbations, L), and

    .. math:: W = (G^T G + \lambda I)^{-1} G^T (Y - b) P (P^T P + \lambda I)^{-1}

    Ahlmann-Eltze, Huber and Anders, Nat Methods 2025, who take P from the rows of G. Here a perturbation is by default
    described by the co-expression of its target gene with all others among the control cells of the context, which is
    there whether or not the target was perturbed. A combination has the sum of the features of its parts. Where nothing
    is known of a target, the prediction is b.

    Parameters
    ----------
    features
        Perturbations in rows; None: co-expression of the genes that are called like them.
    n_components
        K, and L of the co-expression; at most.
    ridge
        Lambda, for G with unit mean square, and P with rows of unit mean square.
    """

    def __init__(self, features: pd.DataFrame | None = None, n_components: int = 10, ridge: float = 0.1) -> None:
        super().__init__()
        if n_components < 1 or not ridge > 0:
            raise DataError(f"n_components is {n_components} and ridge {ridge}; both must be positive.")
        self.features, self.n_components, self.ridge = features, n_components, ridge

    def expected_shift(self, control_counts: sp.csr_matrix, condition: str, context: str) -> Array:
        """Fit on the other perturbations of the context and predict from the features of this one."""
        others = self.train.other_conditions(condition, context)
        shifts = np.stack([self.shift(other, context) for other in others])
        mean = shifts.mean(axis=0)
        if len(others) < 2:
            return mean
        table = self._coexpression(control_counts) if self.features is None else self.features
        described = np.stack([self._describe(name, table) for name in [*others, condition]])
        size = np.sqrt((described[:-1] ** 2).sum(axis=1).mean())
        known, wanted = described[:-1] / max(size, 1e-12), described[-1] / max(size, 1e-12)
        genes = np.linalg.svd(shifts - mean, full_matrices=False)[2][: self.n_components].T  # orthonormal columns
        genes *= np.sqrt(len(genes))
        inner = genes.T @ (shifts - mean).T @ known
        left = np.linalg.solve(genes.T @ genes + self.ridge * np.eye(genes.shape[1]), inner)
        right = known.T @ known + self.ridge * np.eye(known.shape[1])
        return mean + genes @ (left @ np.linalg.solve(right, wanted))

    def _coexpression(self, control_counts: sp.csr_matrix) -> pd.DataFrame:
        """Loadings of the genes on the first principal components of standardised control cells."""
        values = log_normalize(control_counts)
        values -= values.mean(axis=0)
        values /= np.maximum(values.std(axis=0), 1e-6)
        _, spread, loadings = np.linalg.svd(values, full_matrices=False)
        table = (spread[:, None] * loadings)[: self.n_components].T / np.sqrt(len(values))
        return pd.DataFrame(table, index=list(self.train.genes) or None)

    def _describe(self, condition: str, table: pd.DataFrame) -> Array:
        known = [part for part in self.train.parts(condition) if part in table.index]
        return table.loc[known].to_numpy(dtype=np.float64).sum(axis=0)
