"""What perturbations do only together: a low-rank term over combinations, zero for single perturbations."""

from __future__ import annotations

__all__ = ["InteractionFit", "fit_interactions", "interaction_rows"]

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.shift.shared import calibrated_factor

Array = NDArray[np.float64]

_RIDGES = np.geomspace(1e-2, 1e2, 17)  # relative to the mean squared length of a row


@dataclass(frozen=True)
class InteractionFit:
    """Interactions of combinations as sums of what each part adds in the presence of others.

    Parameters
    ----------
    loadings
        What a perturbation adds in the presence of another one, (perturbations, columns).
    factor
        In [0, 1]: how far such sums predict combinations that were left out; 0 with fewer than three.
    error
        Root mean squared error of predictions of combinations that were left out (columns,).
    """

    loadings: Array
    factor: float
    error: Array

    def predict(self, design: ArrayLike, largest: ArrayLike) -> Array:
        """Interaction of conditions (conditions, columns); exactly zero for control and single perturbations.

        Parameters
        ----------
        design
            Doses (conditions, perturbations).
        largest
            Largest dose seen of each perturbation (perturbations,).
        """
        return self.factor * interaction_rows(design, largest) @ self.loadings


def interaction_rows(design: ArrayLike, largest: ArrayLike) -> Array:
    """How often each part meets another, (conditions, perturbations): sums over pairs of parts j < k of s_j and s_k.

    s is log1p(dose) relative to that of the largest dose seen, at most 1; without doses it is 1. A condition of fewer
    than two parts is a row of zeros.

    Parameters
    ----------
    design
        Doses (conditions, perturbations).
    largest
        Largest dose seen of each perturbation (perturbations,); 0 where it was never seen.
    """
    doses, most = np.atleast_2d(np.asarray(design, dtype=float)), np.asarray(largest, dtype=float)
    share = np.minimum(np.log1p(doses) / np.log1p(np.where(most > 0, most, np.inf)), 1.0)
    n_others = np.maximum((doses > 0).sum(axis=1, keepdims=True) - 1, 0)
    return share * n_others


def fit_interactions(design: ArrayLike, interactions: ArrayLike, largest: ArrayLike) -> InteractionFit:
    r"""Learn what each perturbation adds in the presence of others from the combinations that were seen.

    .. math:: I_c = \sum_{j < k \in c} (s_j q_j + s_k q_k) + \text{noise}

    by ridge regression, the ridge chosen by leaving combinations out, and all of it multiplied by `calibrated_factor`
    of those predictions: where nothing carries over from one combination to the next, unseen ones stay additive.

    Parameters
    ----------
    design
        Doses of the combinations seen (combinations, perturbations).
    interactions
        Their effects beyond the sum of their parts (combinations, columns).
    largest
        Largest dose seen of each perturbation (perturbations,).

    Raises
    ------
    DataError
        If the numbers of combinations or perturbations differ.

    Notes
    -----
    Rank: at most the number of perturbations. Leave-one-out predictions by the hat matrix.
    """
    rows, values = interaction_rows(design, largest), np.asarray(interactions, dtype=float)
    if values.ndim != 2 or len(rows) != len(values):
        raise DataError(f"{len(rows)} combinations but interactions of shape {values.shape}; give one row for each.")
    if not len(rows):
        return InteractionFit(np.zeros((rows.shape[1], values.shape[1])), 0.0, np.zeros(values.shape[1]))
    gram, scale = rows @ rows.T, float((rows**2).sum(axis=1).mean())
    identity = np.eye(len(rows))
    best, predicted, chosen = np.inf, np.zeros_like(values), _RIDGES[-1]
    for ridge in _RIDGES:
        hat = np.linalg.solve(gram + ridge * scale * identity, gram)
        left_out = values - (values - hat.T @ values) / (1 - np.diag(hat))[:, None]
        error = float(((values - left_out) ** 2).sum())
        if error < best:
            best, predicted, chosen = error, left_out, ridge
    loadings = rows.T @ np.linalg.solve(gram + chosen * scale * identity, values)
    factor = calibrated_factor(predicted, values)
    return InteractionFit(loadings, factor, np.sqrt(((values - factor * predicted) ** 2).mean(axis=0)))
