"""How far perturbed cells reach into a tissue, and what they do to its other cells."""

from __future__ import annotations

__all__ = ["NicheResponse", "fit_niche_response", "niche_field"]

from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from cfmvc_scvi.errors import DataError

Array = NDArray[np.float64]

_GAINS = np.linspace(0.1, 0.99, 90)
_TESTED_GAINS = np.array([0.2, 0.4, 0.6, 0.75, 0.85, 0.92, 0.98])
_N_ROUNDS = 100
_N_MOVES = 59
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
        Share of the patterns of perturbed cells, moved elsewhere in their slices, that explain as much.
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
    state: ArrayLike,
    held: ArrayLike,
    others: ArrayLike,
    pool: sp.csr_matrix,
    groups: ArrayLike,
    coordinates: ArrayLike,
    slices: ArrayLike,
    rng: Generator,
) -> NicheResponse:
    r"""Learn from a tissue with perturbed cells how the cells around them follow.

    For each gain g, the state of the other cells, minus the mean of their group and a quadratic trend in the
    coordinates of their slice, is regressed on the reach h of the perturbed cells (`niche_field`) less the same; the
    gain is the one that explains most,

    .. math:: u_i = q \, h_i(g) + f(x_i) + e_i,

    and both are zero unless it explains more than 95 % of the same patterns of perturbed cells do elsewhere: mirrored
    and moved at random within their slices, round the edges. Neighbouring cells are alike in every tissue; a pattern
    that is moved meets as much of that, which cells permuted one by one would not.

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
    coordinates
        Place of each cell in its slice (cells, axes), in any unit.
    slices
        Code of each cell's slice (cells,).
    rng
        Draws the moves.

    Raises
    ------
    DataError
        If shapes differ, or there are fewer than eight perturbed or other cells.

    Notes
    -----
    One number for the reach and one direction for all groups: the simplest model of spill-over there is. It sees an
    association: perturbed cells that were not placed at random show what else is particular about where they lie, as
    far as it is no trend. Cost: sixty times a hundred products of `pool` with a few columns.
    """
    u, place = np.asarray(state, dtype=float), np.asarray(coordinates, dtype=float)
    source, asked = (np.asarray(each, dtype=bool) for each in (held, others))
    code, of, n = np.asarray(groups), np.asarray(slices), len(u)
    shapes_fit = u.ndim == place.ndim == 2 and len(place) == n and pool.shape == (n, n)
    if not shapes_fit or any(x.shape != (n,) for x in (source, asked, code, of)):
        raise DataError(
            f"state {u.shape}, held {source.shape}, others {asked.shape}, groups {code.shape}, pool {pool.shape}, "
            f"coordinates {place.shape} and slices {of.shape} are not of the same cells."
        )
    if min(source.sum(), asked.sum()) < _FEW:
        raise DataError(
            f"{int(source.sum())} perturbed and {int(asked.sum())} other cells; a tissue with at least {_FEW} of each "
            "is needed to learn how neighbours respond."
        )
    trend = _trend(place, of)
    found = _explained(u, source, asked, pool, code, trend, _TESTED_GAINS)[0].max()
    chance = []
    for _ in range(_N_MOVES):
        moved = _moved(source, place, of, rng)
        chance.append(_explained(u, moved, asked & ~moved, pool, code, trend, _TESTED_GAINS)[0].max())
    p_value = float((1 + np.sum(np.array(chance) >= found)) / (1 + _N_MOVES))
    if p_value > _CHANCE or not found > 0:
        return NicheResponse(0.0, np.zeros(u.shape[1]), p_value)
    shares, directions = _explained(u, source, asked, pool, code, trend, _GAINS)
    best = int(shares.argmax())
    return NicheResponse(float(_GAINS[best]), directions[best], p_value)


def _explained(
    u: Array,
    source: NDArray[np.bool_],
    asked: NDArray[np.bool_],
    pool: sp.csr_matrix,
    code: NDArray[Any],
    trend: Array,
    gains: Array,
) -> tuple[Array, Array]:
    """Return the share of the variance of the cells asked that each gain explains, and the direction it finds."""
    place = np.unique(code[asked], return_inverse=True)[1]
    fields, values, smooth = (
        _centred(each[asked], place) for each in (niche_field(source, pool, gains, _N_ROUNDS), u, trend)
    )
    basis = np.linalg.qr(smooth)[0] if len(smooth) > smooth.shape[1] else np.zeros((len(smooth), 1))
    fields, values = fields - basis @ (basis.T @ fields), values - basis @ (basis.T @ values)
    length, total = (fields**2).sum(axis=0), (values**2).sum()
    if not (length.min() > 0 and total > 0):
        return np.zeros(len(gains)), np.zeros((len(gains), u.shape[1]))
    products = fields.T @ values
    return (products**2).sum(axis=1) / length / total, products / length[:, None]


def _trend(place: Array, slices: NDArray[Any]) -> Array:
    """Return the coordinates of each slice and their products, zero outside of it, (cells, terms)."""
    columns = []
    for code in np.unique(slices):
        mine = slices == code
        spread = place[mine].std(axis=0)
        x = (place[mine] - place[mine].mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        products = combinations_with_replacement(range(x.shape[1]), 2)
        terms = np.column_stack([x, *(x[:, one] * x[:, other] for one, other in products)])
        column = np.zeros((len(place), terms.shape[1]))
        column[mine] = terms
        columns.append(column)
    return np.hstack(columns)


def _moved(held: NDArray[np.bool_], place: Array, slices: NDArray[Any], rng: Generator) -> NDArray[np.bool_]:
    """Return the cells nearest to where the cells held are after their slice is mirrored and moved round its edges."""
    result = np.zeros_like(held)
    for code in np.unique(slices[held]):
        cells = np.flatnonzero(slices == code)
        low, size = place[cells].min(axis=0), np.ptp(place[cells], axis=0)
        offset = place[cells[held[cells]]] - low
        mirrored = np.where(rng.random(offset.shape[1]) < 0.5, offset, size - offset)
        there = low + np.mod(mirrored + size * rng.random(offset.shape[1]), np.where(size > 0, size, 1.0))
        result[cells[cKDTree(place[cells]).query(there)[1]]] = True
    return result


def _centred(values: Array, place: NDArray[np.intp]) -> Array:
    total = np.zeros((place.max() + 1, values.shape[1]))
    np.add.at(total, place, values)
    return values - (total / np.bincount(place)[:, None])[place]
