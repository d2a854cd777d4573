"""Couplings: which source cell is the partner of which target cell, within one group of comparable cells."""

from __future__ import annotations

__all__ = ["optimal_coupling", "random_coupling"]

import math
from typing import Any

import numpy as np
import ot
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from cfmvc_scvi.errors import DataError, NonFiniteError

# Pivots of the network simplex before POT gives up with a warning; a few thousand cells can exceed its own default.
_MAX_PIVOTS = 10_000_000


def optimal_coupling(
    z_0: NDArray[Any], z_1: NDArray[Any], rng: np.random.Generator, *, max_cells: int, n_rounds: int = 1
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pair each target cell with source cells drawn from the exact optimal transport plan.

    The plan minimises sum_ij P_ij |z_0i - z_1j|^2 over P >= 0 with uniform marginals 1/n and 1/m; the partner of
    target j is drawn from column j of P, anew in each round. Groups larger than `max_cells` are split at random into
    blocks that are solved one by one, so that the cost grows linearly with the group; smaller blocks give longer, more
    random pairs.

    Parameters
    ----------
    z_0
        Source states, shape (n, dimensions).
    z_1
        Target states, shape (m, dimensions); n and m may differ.
    rng
        Generator of the random split and of the draws from the plan.
    max_cells
        Largest number of source cells, and of target cells, in one block; about a second per block at 2000.
    n_rounds
        How often each target is paired. With fewer targets than sources one round leaves most sources without a
        partner; rounds cost little beside the plan.

    Returns
    -------
    Row indices into `z_0` and into `z_1`, both of shape (n_rounds * m,). In each round every target appears exactly
    once, in order; every source appears m / n times in expectation, hence exactly once when n = m.

    Raises
    ------
    DataError
        If a group is empty, the dimensions differ or `max_cells` is not positive.
    NonFiniteError
        If a state is NaN or infinite.

    References
    ----------
    Tong et al., Improving and generalizing flow-based generative models with minibatch optimal transport, TMLR 2024,
    where the plan is that of a minibatch; here it is that of a group. Bonneel et al., Displacement interpolation using
    Lagrangian mass transport, 2011, for the solver (POT).

    Examples
    --------
    >>> z_0, z_1 = np.array([[0.0], [10.0]]), np.array([[11.0], [1.0]])
    >>> optimal_coupling(z_0, z_1, np.random.default_rng(0), max_cells=100)[0].tolist()
    [1, 0]
    """
    n, m = _group_sizes(z_0, z_1, max_cells)
    n_blocks = math.ceil(m / max_cells)
    deck = rng.permutation(n)
    index_0 = np.empty((n_rounds, m), dtype=np.intp)
    start = 0
    for targets in np.array_split(rng.permutation(m), n_blocks):
        # as many sources as targets, or all that are there: a block with few sources would pair almost at random
        n_sources = min(n, max_cells, max(n // n_blocks, targets.size))
        sources = deck[(start + np.arange(n_sources)) % n]
        start += n_sources
        index_0[:, targets] = sources[_draw_partners(z_0[sources], z_1[targets], rng, n_rounds)]
    return index_0.ravel(), np.tile(np.arange(m), n_rounds)


def random_coupling(
    z_0: NDArray[Any], z_1: NDArray[Any], rng: np.random.Generator, *, max_cells: int, n_rounds: int = 1
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pair each target cell with a source cell at random: the independent coupling, interface of `optimal_coupling`.

    Parameters
    ----------
    z_0
        Source states, shape (n, dimensions); only their number matters.
    z_1
        Target states, shape (m, dimensions); only their number matters.
    rng
        Generator of the pairing.
    max_cells
        Checked and otherwise without effect, as there is no plan whose cost it could bound.
    n_rounds
        How often each target is paired.

    Returns
    -------
    Row indices into `z_0` and into `z_1`, both of shape (n_rounds * m,). In each round every target appears exactly
    once, in order; sources are dealt like cards, so that their numbers of appearances differ by at most one.

    Raises
    ------
    DataError, NonFiniteError
        As `optimal_coupling`.
    """
    n, m = _group_sizes(z_0, z_1, max_cells)
    return rng.permutation(np.resize(rng.permutation(n), n_rounds * m)), np.tile(np.arange(m), n_rounds)


def _draw_partners(z_0: NDArray[Any], z_1: NDArray[Any], rng: np.random.Generator, n_rounds: int) -> NDArray[np.intp]:
    """Draw for each row of `z_1` rows of `z_0` from the optimal plan between the two, (n_rounds, m)."""
    n, m = len(z_0), len(z_1)
    cost = cdist(z_0.astype(np.float64), z_1.astype(np.float64), "sqeuclidean")
    # whole numbers as masses: the simplex then adds and subtracts without rounding
    plan = ot.emd(np.full(n, float(m)), np.full(m, float(n)), cost, numItermax=_MAX_PIVOTS)
    # the few positive masses, one target after the other, on one axis: target j has the units from j n to (j + 1) n
    target, source = np.nonzero(plan.T)
    cumulative = np.cumsum(plan[source, target])
    unit = np.minimum(np.floor(rng.random((n_rounds, m)) * n), n - 1)
    threshold = unit + n * np.arange(m)
    return source[np.searchsorted(cumulative, threshold, side="right")]


def _group_sizes(z_0: NDArray[Any], z_1: NDArray[Any], max_cells: int) -> tuple[int, int]:
    """Check two groups of cells and return their sizes."""
    if z_0.ndim != 2 or z_1.ndim != 2 or z_0.shape[1] != z_1.shape[1]:
        raise DataError(
            f"z_0 has shape {z_0.shape} and z_1 {z_1.shape}; pass two matrices (cells, dimensions) of equal dimension"
        )
    if max_cells < 1:
        raise DataError(f"max_cells is {max_cells}; pass at least 1 (a thousand or two is usual)")
    for name, z in (("z_0", z_0), ("z_1", z_1)):
        if len(z) == 0:
            raise DataError(f"{name} holds no cells; couple only groups that have both source and target cells")
        bad = np.flatnonzero(~np.isfinite(z).all(axis=1))
        if bad.size:
            raise NonFiniteError(
                f"{name} is not finite in {bad.size} of {len(z)} cells, first row {bad[0]}; remove these cells or "
                "retrain the encoder that produced them"
            )
    return len(z_0), len(z_1)
