"""Coupled counts: a cell's own counts moved to other gene rates by thinning and superposition with fixed uniforms."""

from __future__ import annotations

__all__ = ["couple_counts", "expected_rate", "profile_pair"]

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from cfmvc_scvi.observe._counts import (
    CP10K,
    Array,
    cell_gene_matrix,
    count_matrix,
    depth_of,
    gene_vector,
    uniform_matrix,
    uniforms_at,
)
from cfmvc_scvi.observe._inverse import binomial_inverse, negative_binomial_inverse

_BLOCK = 2**19  # cells x genes that are coupled at a time: few numbers are in memory at once
_SURELY = 1 - 1e-12  # less than 1 by more than rounding


def couple_counts(
    counts: sp.spmatrix,
    own_rate: ArrayLike,
    target_rate: ArrayLike,
    theta: ArrayLike,
    thinning_uniforms: ArrayLike,
    superposition_uniforms: ArrayLike,
) -> sp.csr_matrix:
    r"""Counterfactual counts of cells whose genes go from `own_rate` m to `target_rate` m'.

    With the ratio rho = m' / m, the depth l of a cell and mu = m l / 1e4,

        m' <= m:  x' = Binomial^-1(u; x, rho)                                                      (thinning)
        m' >  m:  x' = x + NB^-1(u'; mean (rho - 1) mu (theta + x) / (theta + mu), theta + x)       (superposition)

    What is added is drawn as from a cell of which x is known: its rate is a posteriori Gamma(theta + x) of mean
    mu (theta + x) / (theta + mu). Where x is NB(mu, theta), x' is NB(rho mu, theta) both ways. x' is monotone in the
    target rate. Where m' = m, counts stay exactly as they are.

    Parameters
    ----------
    counts
        UMI counts of the cells, sparse (cells, genes).
    own_rate, target_rate
        Counts per 10k as the cells are and as they shall become: (genes,) for all of them, or (cells, genes) of each;
        see `cell_rates`.
    theta
        Inverse dispersion, (genes,).
    thinning_uniforms, superposition_uniforms
        u and u', inside (0, 1), (cells, genes); see `cell_uniforms` and `partner_uniforms`. Of u only the values at
        counts are used: a sparse matrix may hold these alone.

    Returns
    -------
    Integer counts, CSR (cells, genes). Their depth is that of the new counts, not of the old.

    Raises
    ------
    DataError
        If shapes differ, counts are not whole numbers >= 0, or a value is out of range.

    Notes
    -----
    Deterministic given the uniforms. Cost: non-zeros of the genes that fall, cells x genes that rise.

    References
    ----------
    Thinning and superposition of Poisson counts: Kingman, Poisson Processes, 1993, chapters 2 and 5. Gamma rates given
    counts: Gelman et al., Bayesian Data Analysis, 3rd ed. 2013, section 2.6.
    """
    matrix = count_matrix(counts)
    own = _rates("own_rate", own_rate, matrix.shape)
    target = _rates("target_rate", target_rate, matrix.shape)
    size = gene_vector("theta", theta, matrix.shape[1], positive=True)
    thinning = uniforms_at("thinning_uniforms", thinning_uniforms, matrix)
    superposition = uniform_matrix("superposition_uniforms", superposition_uniforms, matrix.shape)
    step = max(1, _BLOCK // max(1, matrix.shape[1]))
    blocks = [matrix[:0]]
    for first in range(0, matrix.shape[0], step):
        rows = slice(first, min(first + step, matrix.shape[0]))
        block, drawn = matrix[rows], thinning[slice(*matrix.indptr[[rows.start, rows.stop]])]
        before, after = (rate if len(rate) == 1 else rate[rows] for rate in (own, target))
        blocks.append(_Change(block, before, after, size).counts(drawn, superposition[rows]))
    result = sp.csr_matrix(sp.vstack(blocks, format="csr"), dtype=np.int64)
    result.eliminate_zeros()
    return result


def _rates(name: str, values: ArrayLike, shape: tuple[int, int]) -> Array:
    """Check rates of all cells, (genes,), or of each, (cells, genes); return (1, genes) or (cells, genes)."""
    if np.ndim(values) == 2:
        return cell_gene_matrix(name, values, shape)
    return gene_vector(name, values, shape[1])[None]


def profile_pair(profiles: tuple[ArrayLike, ArrayLike] | None, shape: tuple[int, int]) -> tuple[Array, Array] | None:
    """Check the two relative profiles; None stays None."""
    if profiles is None:
        return None
    before, after = profiles
    return cell_gene_matrix("profile before", before, shape), cell_gene_matrix("profile after", after, shape)


class _Change:
    """Cells whose genes go from `own` to `target`, (1, genes) or (cells, genes)."""

    def __init__(self, cells: sp.csr_matrix, own: Array, target: Array, theta: Array) -> None:
        self.cells, self.own, self.target, self.theta = cells, own, target, theta
        self.unit = depth_of(cells) / CP10K
        self.cell = np.repeat(np.arange(cells.shape[0]), np.diff(cells.indptr))
        self.place = self.cell * cells.shape[1] + cells.indices  # of each stored count among cells x genes

    def counts(self, thinning: Array, superposition: Array) -> sp.csr_matrix:
        """Coupled counts; changes `cells`. `thinning` has one uniform for each stored count."""
        gained = (self.target - self.own) * self.unit[:, None]
        of_stored = gained.take(self.place)
        gained.ravel()[self.place] = 0.0
        appeared = self._appeared(gained, superposition)
        self._fall(np.flatnonzero(of_stored < 0), thinning)
        self._rise(np.flatnonzero(of_stored > 0), of_stored, superposition)
        return self.cells + appeared

    def _at(self, rates: Array, stored: NDArray[np.intp]) -> Array:
        return rates.take((self.cells.indices if len(rates) == 1 else self.place).take(stored))

    def _fall(self, falls: NDArray[np.intp], thinning: Array) -> None:
        data, ratio = self.cells.data, self._at(self.target, falls) / self._at(self.own, falls)
        data[falls] = binomial_inverse(thinning.take(falls), data.take(falls), ratio)

    def _rise(self, rises: NDArray[np.intp], gained: Array, superposition: Array) -> None:
        data, theta = self.cells.data, self.theta.take(self.cells.indices.take(rises))
        own, x = self._at(self.own, rises) * self.unit.take(self.cell.take(rises)), data.take(rises)
        mean, u = added_mean(gained.take(rises), own, theta, x), superposition.take(self.place.take(rises))
        some = np.flatnonzero(u + mean > _SURELY)
        theta, x = theta.take(some), x.take(some)
        data[rises.take(some)] = x + negative_binomial_inverse(u.take(some), mean.take(some), theta + x)

    def _appeared(self, gained: Array, uniforms: Array) -> sp.csr_matrix:
        """Counts where there were none, (cells, genes)."""
        n_cells, n_genes = self.cells.shape
        some = np.flatnonzero(uniforms + gained > _SURELY)  # P(0) >= exp(-mean) >= 1 - mean: the others are zero
        ends = np.searchsorted(some, np.arange(n_cells + 1) * n_genes)
        gene = some % n_genes
        own = self.own.take(gene if len(self.own) == 1 else some) * np.repeat(self.unit, np.diff(ends))
        theta = self.theta.take(gene)
        mean = added_mean(np.maximum(gained.take(some), 0.0), own, theta, 0.0)
        added = negative_binomial_inverse(uniforms.take(some), mean, theta)
        return sp.csr_matrix((added, gene, ends), shape=(n_cells, n_genes))


def added_mean(gained: Array, own: Array, theta: Array, count: Array | float) -> Array:
    """Mean of what is added to `count` where the mean of all cells gains `gained` above `own`, elementwise."""
    return gained * ((theta + count) / (theta + own))


def expected_rate(
    rate: ArrayLike,
    own_rate: ArrayLike,
    target_rate: ArrayLike,
    profiles: tuple[ArrayLike, ArrayLike] | None = None,
) -> Array:
    """Mean version of `couple_counts`: expected counts per 10k of each cell after the counterfactual.

    A gene that falls is multiplied by m' / m, to one that rises m' - m is added, and each cell is then scaled back to
    the total it had.

    Parameters
    ----------
    rate
        Expected counts per 10k of each cell as it is, (cells, genes).
    own_rate, target_rate
        Counts per 10k of the context's reference cells as they are and as they shall become, (genes,).
    profiles
        Rates of each cell relative to the context's, as it is and as it becomes, (cells, genes) each; by default all
        are 1.

    Returns
    -------
    Expected counts per 10k, (cells, genes); `rate` itself, bit for bit, where m' = m in all genes.

    Raises
    ------
    DataError
        If shapes differ or a value is out of range.
    """
    before = np.asarray(rate, dtype=np.float64)
    before = cell_gene_matrix("rate", before, (before.shape[0], np.size(own_rate)))
    own = gene_vector("own_rate", own_rate, before.shape[1])
    target = gene_vector("target_rate", target_rate, before.shape[1])
    relative = profile_pair(profiles, before.shape)
    if relative is not None:
        own, target = own * relative[0], target * relative[1]
    falls = target < own
    after = np.where(falls, before * (target / np.where(falls, own, 1.0)), before + np.maximum(target - own, 0.0))
    total = after.sum(axis=1, keepdims=True)
    return after * (before.sum(axis=1, keepdims=True) / np.where(total > 0, total, 1.0))
