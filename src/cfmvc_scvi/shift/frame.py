"""The moving frame of the flow: where a context's control cells are expected to move in the latent space."""

from __future__ import annotations

__all__ = ["latent_shift"]

import numpy as np
from numpy.typing import NDArray

from cfmvc_scvi.errors import DataError, NonFiniteError

Array = NDArray[np.float64]


def latent_shift(control_means: Array, perturbed_means: Array, weights: Array, leave_one_out: bool = True) -> Array:
    r"""Expected latent shift of a perturbation in each context, from the contexts that saw it.

    delta_k = beta sum_j w_kj (perturbed_j - control_j) / sum_j w_kj over the contexts j != k that saw the perturbation;
    a context that saw it is left out of its own shift, so that a flow is trained in the situation it will meet in an
    unseen context. The share beta in [0, 1] of the borrowed shifts is the one that comes closest to the own shifts of
    the contexts that have both: directions of a latent differ between contexts, and where they do, a shift borrowed
    whole ends farther away than none.

    Parameters
    ----------
    control_means
        Mean latent of the control cells (contexts, dims).
    perturbed_means
        Mean latent of the perturbed cells (contexts, dims); a row of NaN where the context did not see the
        perturbation.
    weights
        Similarity weights (contexts, contexts), row k for context k; the diagonal is not read.
    leave_one_out
        False gives a context that saw the perturbation its own shift.

    Returns
    -------
    Shifts (contexts, dims). A context that alone saw the perturbation gets its own shift.

    Raises
    ------
    DataError
        If shapes differ, no context saw the perturbation, or a context gives no weight to any that did.
    NonFiniteError
        If a mean that is needed is not finite.
    """
    n = len(control_means)
    if control_means.shape != perturbed_means.shape or weights.shape != (n, n):
        shapes = f"{control_means.shape}, {perturbed_means.shape} and {weights.shape}"
        raise DataError(f"Expected means (contexts, dims) twice and weights (contexts, contexts); got {shapes}.")
    seen: NDArray[np.bool_] = np.logical_not(np.isnan(perturbed_means).all(axis=1))
    if not seen.any():
        raise DataError(f"None of the {n} contexts saw the perturbation, so it has no latent shift.")
    own = np.where(seen[:, None], perturbed_means - control_means, 0.0)
    bad = int((~np.isfinite(own)).any(axis=1).sum())
    if bad:
        raise NonFiniteError(f"Latent means of {bad} contexts are not finite; only whole rows of NaN mean 'not seen'.")
    others = np.where(seen, weights, 0.0)
    np.fill_diagonal(others, 0.0)
    keeps_own = seen & (seen.sum() == 1) if leave_one_out else seen
    total = others.sum(axis=1)
    lost = np.flatnonzero(~keeps_own & ~(total > 0))
    if lost.size:
        raise DataError(
            f"{lost.size} contexts give no weight to a context that saw the perturbation (first: {lost[0]})."
        )
    borrowed = (others @ own) / np.where(total > 0, total, 1.0)[:, None]
    return np.where(keeps_own[:, None], own, _common_share(own[seen], borrowed[seen]) * borrowed)


def _common_share(own: Array, borrowed: Array) -> float:
    """Least-squares factor in [0, 1] from borrowed to own shifts, (contexts, dims) each; 1 if nothing is borrowed."""
    size = float((borrowed**2).sum())
    return float(np.clip((own * borrowed).sum() / size, 0.0, 1.0)) if size > 0 else 1.0
