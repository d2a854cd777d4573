"""How far perturbed cells reach into a tissue, and what they do to its other cells."""

from __future__ import annotations

__all__ = ["NicheResponse", "distance_to_region", "fit_niche_response", "niche_field"]

from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from math import comb
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
_LENGTHS = np.geomspace(0.25, 16, 61)  # in the median distance of neighbours
_TESTED_LENGTHS = np.geomspace(0.5, 8, 5)
_N_ROUNDS = 100
_N_MOVES = 59
_CHANCE = 0.02
_FEW = 8
_DEGREE = 5  # of the trend over a slice, where cells are enough
_CELLS_PER_TERM = 20  # of a group, with fewer of which it has no trend of its own


@dataclass(frozen=True)
class NicheResponse:
    """Response of cells to perturbed cells around them.

    It is passed on from neighbour to neighbour (`gain`), or falls off with the distance (`length`).

    Parameters
    ----------
    gain
        In [0, 1): what a cell takes over from the mean of its neighbours; 0 where nothing is passed on.
    length
        Distance over which the response falls to 1/e, in the unit of the coordinates; 0 if it does not go by distance.
    direction
        Change of state of a cell whose neighbours are all perturbed, over `gain`; or of one beside a perturbed cell,
        (dims,).
    p_value
        Share of the patterns of perturbed cells, moved elsewhere in their slices, that explain as much.
    """

    gain: float
    length: float
    direction: Array
    p_value: float

    @property
    def found(self) -> bool:
        """Whether a response is told from chance; if not, `gain` and `length` are 0."""
        return self.gain > 0 or self.length > 0

    def spread(self, held: ArrayLike, pool: sp.csr_matrix, distance: ArrayLike, n_rounds: int) -> Array:
        """Change of state of each cell after rounds of passing on; zero for the cells held, (cells, dims).

        Parameters
        ----------
        held
            Whether a cell is perturbed (cells,).
        pool
            Weights of the neighbours of each cell, rows summing to 1, (cells, cells).
        distance
            From each cell to the nearest perturbed one (`distance_to_region`), (cells,).
        n_rounds
            Rounds; each reaches one neighbourhood further.
        """
        source = np.asarray(held, dtype=bool)
        gains = np.array([self.gain if self.gain > 0 else 0.5])
        reach = niche_field(source, pool, gains, n_rounds)[:, 0]
        if self.length > 0:
            reach = np.where(reach > 0, _falling(np.asarray(distance, dtype=float), np.array([self.length]))[:, 0], 0.0)
        return np.where(source, 0.0, reach)[:, None] * self.direction


def distance_to_region(held: ArrayLike, coordinates: ArrayLike, slices: ArrayLike) -> Array:
    """Distance of each cell to the nearest cell held in its slice, NaN where there is none, (cells,).

    Parameters
    ----------
    held
        (cells,) boolean.
    coordinates
        (cells, axes).
    slices
        Code of each cell's slice (cells,).
    """
    source, place, of = np.asarray(held, dtype=bool), np.asarray(coordinates, dtype=float), np.asarray(slices)
    result = np.full(len(place), np.nan)
    for code in np.unique(of[source]):
        mine = of == code
        result[mine] = cKDTree(place[mine & source]).query(place[mine])[0]
    return result


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

    For each gain g, the state of the other cells, minus the mean of their group and a trend over their slice, is
    regressed on the reach h of the perturbed cells less the same,

    .. math:: u_i = q \, h_i + f_{c(i)}(x_i) + e_i, \quad h_i = h_i(g) \text{ of `niche_field`, or } e^{-d_i / l}

    with d the distance to the nearest perturbed cell. The trend f is of the fifth degree in the coordinates, less where
    a slice has fewer than twenty cells a term, and of each group its own where that has as many: regions differ, cell
    type by cell type. The law, and its gain g or length l, are those that explain most beyond what they do on average
    where the pattern of perturbed cells is moved elsewhere: mirrored and moved at random within their slices, round the
    edges. All is zero unless that is more than in 98 % of these places. Neighbouring cells are alike in every tissue,
    and the more so the longer the reach; a pattern that is moved meets as much of that, which cells permuted one by one
    would not.

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
    far as it is no trend. Cost: sixty times a hundred products of `pool` with a few columns, and a projection on the
    trends, cells x terms^2 once and cells x terms for each column.
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
    unit = _neighbour_distance(place, pool)
    group = np.unique(
        np.column_stack([np.unique(each, return_inverse=True)[1] for each in (of, code)]), axis=0, return_inverse=True
    )[1].reshape(-1)
    tissue = _Tissue(u, pool, group, place, of, *_trends(place, of, group, asked))
    moved = [_moved(source, place, of, rng) for _ in range(_N_MOVES)]
    tested = _TESTED_GAINS, unit * _TESTED_LENGTHS
    explained = np.stack([tissue.explained(some, asked & ~some, *tested)[0] for some in (source, *moved)])
    beyond = (explained - explained.mean(axis=0)).max(axis=1)
    p_value = float(np.mean(beyond >= beyond[0]))
    if p_value > _CHANCE or not explained[0].max() > 0:
        return NicheResponse(0.0, 0.0, np.zeros(u.shape[1]), p_value)
    shares, directions = tissue.explained(source, asked, _GAINS, unit * _LENGTHS)
    first = _response(int(shares.argmax()), unit, directions, p_value)
    # elsewhere the patterns meet some of the very response, which has to be taken out to know what they meet without it
    rest = replace(tissue, state=u - first.spread(source, pool, distance_to_region(source, place, of), _N_ROUNDS))
    elsewhere = np.mean([rest.explained(some, asked & ~some, *tested)[0] for some in moved], axis=0)
    by_gain, by_length = np.split(elsewhere, [len(_TESTED_GAINS)])
    shares[: len(_GAINS)] -= np.interp(_GAINS, _TESTED_GAINS, by_gain)
    shares[len(_GAINS) :] -= np.interp(_LENGTHS, _TESTED_LENGTHS, by_length)
    return _response(int(shares.argmax()), unit, directions, p_value)


def _response(best: int, unit: float, directions: Array, p_value: float) -> NicheResponse:
    """Return the response by the law at this place among all gains and lengths."""
    if best < len(_GAINS):
        return NicheResponse(float(_GAINS[best]), 0.0, directions[best], p_value)
    return NicheResponse(0.0, unit * float(_LENGTHS[best - len(_GAINS)]), directions[best], p_value)


@dataclass(frozen=True)
class _Tissue:
    """What is regressed and taken out, of all cells."""

    state: Array
    pool: sp.csr_matrix
    groups: NDArray[Any]
    place: Array
    slices: NDArray[Any]
    terms: Array
    areas: NDArray[Any]

    def explained(
        self, source: NDArray[np.bool_], asked: NDArray[np.bool_], gains: Array, lengths: Array
    ) -> tuple[Array, Array]:
        """Return the share of the variance of the cells asked that each gain and length explains, and its direction."""
        distance = distance_to_region(source, self.place, self.slices)
        laws = np.hstack([niche_field(source, self.pool, gains, _N_ROUNDS), _falling(distance, lengths)])
        rest = self._less_trend(np.hstack([laws, self.state])[asked], asked)
        fields, values = np.hsplit(rest, [laws.shape[1]])
        length, total = (fields**2).sum(axis=0), (values**2).sum()
        products = fields.T @ values
        known = length > 0  # a field that reaches no cell asked explains nothing
        length = np.where(known, length, 1.0)
        share = (products**2).sum(axis=1) / length / total if total > 0 else np.zeros(len(length))
        return np.where(known, share, 0.0), np.where(known[:, None], products / length[:, None], 0.0)

    def _less_trend(self, values: Array, asked: NDArray[np.bool_]) -> Array:
        """Return values of the cells asked less the means of their groups and the trends of their areas."""
        code = np.unique(self.groups[asked], return_inverse=True)[1]
        rest, terms, areas = _centred(values, code), _centred(self.terms[asked], code), self.areas[asked]
        for area in np.unique(areas):
            mine = areas == area
            columns = terms[mine, : _n_terms(int(mine.sum()), self.place.shape[1])]
            left, size, _ = np.linalg.svd(columns, full_matrices=False)
            basis = left[:, size > 1e-9 * size.max(initial=0.0)]
            rest[mine] -= basis @ (basis.T @ rest[mine])
        return rest


def _n_terms(n_cells: int, n_axes: int) -> int:
    """Return the number of terms of the trend of the highest degree for which the cells are enough."""
    numbers = [comb(n_axes + degree, degree) - 1 for degree in range(_DEGREE + 1)]
    return max(number for number in numbers if number * _CELLS_PER_TERM <= n_cells)


def _falling(distance: Array, lengths: Array) -> Array:
    """Return exp(-distance / length), zero where there is no distance, (cells, lengths)."""
    return np.exp(-np.where(np.isnan(distance), np.inf, distance)[:, None] / lengths)


def _neighbour_distance(place: Array, pool: sp.csr_matrix) -> float:
    """Return the median distance of neighbours, 1 where all are in one place."""
    links = pool.tocoo()
    median = float(np.median(np.linalg.norm(place[links.row] - place[links.col], axis=1)))
    return median if median > 0 else 1.0


def _trends(
    place: Array, slices: NDArray[Any], groups: NDArray[Any], asked: NDArray[np.bool_]
) -> tuple[Array, NDArray[Any]]:
    """Return powers of the coordinates (cells, terms), and the area within which each cell shares a trend (cells,).

    That is a group which has cells enough, or all others of a slice together.
    """
    x = np.zeros_like(place)
    for code in np.unique(slices):
        mine = slices == code
        size = np.ptp(place[mine], axis=0)
        x[mine] = 2 * (place[mine] - place[mine].min(axis=0)) / np.where(size > 0, size, 1.0) - 1
    axes = [some for n in range(1, _DEGREE + 1) for some in combinations_with_replacement(range(x.shape[1]), n)]
    terms = np.stack([x[:, some].prod(axis=1) for some in axes], axis=1)
    large = np.bincount(groups, weights=asked) >= _CELLS_PER_TERM * len(axes)
    own = np.where(large[groups], 1 + groups, 0)
    both = np.column_stack([np.unique(slices, return_inverse=True)[1], own])
    return terms, np.unique(both, axis=0, return_inverse=True)[1].reshape(-1)


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
