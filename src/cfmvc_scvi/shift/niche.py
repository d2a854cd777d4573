"""How far perturbed cells reach into a tissue, and what they do to its other cells."""

from __future__ import annotations

__all__ = ["NicheResponse", "fit_niche_response", "niche_field"]

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from cfmvc_scvi.errors import DataError

Array = NDArray[np.float64]

_GAINS = np.linspace(0.1, 0.99, 90)
_N_ROUNDS = 100
_N_PERMUTATIONS = 99
_CHANCE = 0.05
_FEW = 8


@dataclass(frozen=True)
class NicheResponse:
    """Response of cells to perturbed cells around them, passed on from neighbour to neighbour.

    Parameters
    ----------
    gain
        In [0, 1): what a cell takes over from the mean of its neighbours; 0 where none is told from chance.
    direction
        Change of state of a cell whose neighbours are all perturbed, over `gain`, (dims,).
    p_value
        Share of permutations of cells within their groups that explain as much.
    """

    gain: float
    direction: Array
    p_value: float

    def spread(self, held: ArrayLike, pool: sp.csr_matrix, n_rounds: int) -> Array:
        """Change of state of each cell after rounds of passing on; zero for the cells held, (cells, dims).

        Parameters
        ----------
        held
            Whether a cell is perturbed (cells,).
        pool
            Weights of the neighbours of each cell, rows summing to 1, (cells, cells).
        n_rounds
            Rounds; each reaches one neighbourhood further.
        """
        source = np.asarray(held, dtype=bool)
        field = niche_field(source, pool, np.array([self.gain]), n_rounds)[:, 0]
        return np.where(source, 0.0, field)[:, None] * self.direction


def niche_field(held: NDArray[np.bool_], pool: sp.csr_matrix, gains: Array, n_rounds: int) -> Array:
    r"""Reach h of the cells held, for each gain, (cells, gains).

    .. math:: h_i = 1 \text{ where held, else } g \, \overline{h_{N(i)}}

    after rounds from zero, in which the wave front travels one neighbourhood each.

    Parameters
    ----------
    held
        Whether a cell is a source (cells,).
    pool
        Weights of the neighbours of each cell, rows summing to 1, (cells, cells).
    gains
        In [0, 1), (gains,).
    n_rounds
        Rounds.
    """
    field = np.tile(held.astype(float)[:, None], len(gains))
    for _ in range(n_rounds):
        field = gains * (pool @ field)
        field[held] = 1.0
    return field


def fit_niche_response(
    state: ArrayLike, held: ArrayLike, others: ArrayLike, pool: sp.csr_matrix, groups: ArrayLike, rng: Generator
) -> NicheResponse:
    r"""Learn from a tissue with perturbed cells how the cells around them follow.

    For each gain g, the state of the other cells, minus the mean of their group, is regressed on the reach h of the
    perturbed cells (`niche_field`); the gain is the one that explains most,

    .. math:: u_i = q \, h_i(g) + e_i,

    and both are zero unless it explains more than 95 % of the permutations of cells within their groups do.

    Parameters
    ----------
    state
        (cells, dims).
    held
        Whether a cell has the perturbation (cells,).
    others
        Whether a cell may tell of the response: unperturbed ones (cells,).
    pool
        Weights of the neighbours of each cell, (cells, cells) with rows that sum to 1.
    groups
        Code of each cell's group, such as its cell type and slice (cells,).
    rng
        Draws the permutations.

    Raises
    ------
    DataError
        If shapes differ, or there are fewer than eight perturbed or other cells.

    Notes
    -----
    One number for the reach and one direction for all groups: the simplest model of spill-over there is. It sees an
    association: perturbed cells that were not placed at random show what else is particular about where they lie.
    """
    u, source, asked, code = np.asarray(state, dtype=float), *(np.asarray(x) for x in (held, others, groups))
    n = len(u)
    if u.ndim != 2 or any(x.shape != (n,) for x in (source, asked, code)) or pool.shape != (n, n):
        raise DataError(
            f"state {u.shape}, held {source.shape}, others {asked.shape}, groups {code.shape} and pool {pool.shape} "
            "are not of the same cells."
        )
    if min(source.sum(), asked.sum()) < _FEW:
        raise DataError(
            f"{int(source.sum())} perturbed and {int(asked.sum())} other cells; a tissue with at least {_FEW} of each "
            "is needed to learn how neighbours respond."
        )
    place = np.unique(code[asked], return_inverse=True)[1]
    fields = _centred(niche_field(source, pool, _GAINS, _N_ROUNDS)[asked], place)
    values = _centred(u[asked], place)
    length = (fields**2).sum(axis=0)
    if not length.min() > 0:
        return NicheResponse(0.0, np.zeros(u.shape[1]), 1.0)

    def explained(order: NDArray[np.intp]) -> Array:
        return ((fields.T @ values[order]) ** 2).sum(axis=1) / length

    found = explained(np.arange(len(values)))
    chance = [explained(_within(place, rng)).max() for _ in range(_N_PERMUTATIONS)]
    p_value = float((1 + np.sum(chance >= found.max())) / (1 + _N_PERMUTATIONS))
    best = int(found.argmax())
    if p_value > _CHANCE:
        return NicheResponse(0.0, np.zeros(u.shape[1]), p_value)
    return NicheResponse(float(_GAINS[best]), fields[:, best] @ values / length[best], p_value)


def _centred(values: Array, place: NDArray[np.intp]) -> Array:
    total = np.zeros((place.max() + 1, values.shape[1]))
    np.add.at(total, place, values)
    return values - (total / np.bincount(place)[:, None])[place]


def _within(place: NDArray[np.intp], rng: Generator) -> NDArray[np.intp]:
    """Order that permutes cells within their groups."""
    order = np.empty(len(place), dtype=np.intp)
    order[np.argsort(place, kind="stable")] = np.lexsort((rng.random(len(place)), place))
    return order
