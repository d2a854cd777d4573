"""Coupled counts of the same cells at many rates: what does not depend on the rates is computed once."""

from __future__ import annotations

__all__ = ["PreparedCells", "Tally"]

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from cfmvc_scvi.observe._counts import CP10K, Array, depth_of
from cfmvc_scvi.observe._inverse import binomial_inverse, negative_binomial_inverse
from cfmvc_scvi.observe.coupling import added_mean

_SAFE = 1 - 1e-9  # thresholds are met a little early: what is zero nevertheless is found out by the inverse
_TABLED = 32  # counts up to here share their logarithms


class PreparedCells:
    """Cells whose counts are coupled at rates that change; arguments as in `match_rates`, checked.

    Of the uniforms for thinning, those of the stored counts, in their order.
    """

    def __init__(
        self,
        counts: sp.csc_matrix,
        own: Array,
        theta: Array,
        thinning_uniforms: Array,
        superposition_uniforms: Array,
        profiles: tuple[Array, Array] | None,
    ) -> None:
        self.counts, self.shape, self.own_rate, self.theta = counts, counts.shape, own, theta
        self.start, self.length = counts.indptr[:-1].astype(np.intp), np.diff(counts.indptr)
        self.cell, self.value = counts.indices, counts.data
        gene = np.repeat(np.arange(self.shape[1]), self.length)
        self.thinning = thinning_uniforms
        self.superposition = np.ascontiguousarray(superposition_uniforms.T)
        before, after = (None, None) if profiles is None else (np.ascontiguousarray(each.T) for each in profiles)
        self.after = after
        self.own = own[:, None] if before is None else own[:, None] * before
        self.own_of = own[gene] if before is None else self.own[gene, self.cell]
        self.after_of = None if after is None else after[gene, self.cell]
        self.scale = depth_of(counts) / CP10K
        self.threshold = self._thresholds()
        self.threshold[gene, self.cell] = np.inf  # of stored counts there is more to know, at each of them:
        scale, size = self.scale[self.cell], theta[gene]
        self.size_of, self.gain_of = size + self.value, added_mean(scale, self.own_of * scale, size, self.value)
        self.superposition_of = self.superposition[gene, self.cell]

    def _thresholds(self) -> Array:
        """Rates of the genes above which cells without counts get some, (genes, cells): u passes the NB's P(0)."""
        size = self.theta[:, None]
        with np.errstate(divide="ignore", over="ignore"):
            result = np.log(self.superposition)
            result /= -size
            np.expm1(result, out=result)
            result *= size
            result /= added_mean(self.scale, self.own * self.scale, size, 0.0)
            result += self.own
            if self.after is not None:
                result /= self.after
        result *= _SAFE
        return result

    def at(self, genes: NDArray[np.intp], rate: Array) -> sp.csr_matrix:
        """Coupled counts of `genes` at `rate` (of all genes), (len(genes), cells), without stored zeros."""
        length, n_cells = self.length[genes], self.shape[0]
        end = np.cumsum(length)
        place = np.arange(end[-1] if len(end) else 0) + np.repeat(self.start[genes] - (end - length), length)
        target_of = np.repeat(rate[genes], length)
        if self.after_of is not None:
            target_of *= self.after_of.take(place)
        own_of, value = self.own_of.take(place), self.value.take(place)
        falls = np.flatnonzero(target_of < own_of)
        ratio = target_of.take(falls) / own_of.take(falls)
        value[falls] = binomial_inverse(self.thinning.take(place.take(falls)), value.take(falls), ratio)
        self._raise_stored(value, place, target_of - own_of)
        shape = (len(genes), n_cells)
        result = sp.csr_matrix((value, self.cell.take(place), np.concatenate([[0], end])), shape=shape)
        result = result + self._appeared(genes, rate, shape)
        result.eliminate_zeros()
        return result

    def _raise_stored(self, value: Array, place: NDArray[np.intp], gained: Array) -> None:
        """Add to the counts, which stand at `place` of the stored ones, what the rate that they gain brings."""
        rises = np.flatnonzero(gained > 0)
        at = place.take(rises)
        mean, u = gained.take(rises) * self.gain_of.take(at), self.superposition_of.take(at)
        some = np.flatnonzero(u + mean > _SAFE)
        added = negative_binomial_inverse(u.take(some), mean.take(some), self.size_of.take(at.take(some)))
        value[rises.take(some)] += added

    def _appeared(self, genes: NDArray[np.intp], rate: Array, shape: tuple[int, int]) -> sp.csr_matrix:
        """Counts where there were none, of this shape."""
        threshold = self.threshold if len(genes) == self.shape[1] else self.threshold[genes]
        where = np.flatnonzero(rate[genes, None] > threshold)
        ends = np.searchsorted(where, np.arange(shape[0] + 1) * shape[1])
        gene, cell = np.repeat(genes, np.diff(ends)), where % shape[1]
        place = gene * shape[1] + cell
        own = self.own[gene, 0] if self.after is None else self.own.take(place)
        target = rate[gene] if self.after is None else rate[gene] * self.after.take(place)
        scale = self.scale[cell]
        mean = added_mean(np.maximum(target - own, 0.0) * scale, own * scale, self.theta[gene], 0.0)
        added = negative_binomial_inverse(self.superposition.take(place), mean, self.theta[gene])
        return sp.csr_matrix((added, cell, ends), shape=shape)


class Tally:
    """Counts of cells, gene by gene, of which those of some genes are replaced time and again.

    Parameters
    ----------
    counts
        Whole numbers without stored zeros, (genes, cells).
    """

    def __init__(self, counts: sp.csr_matrix) -> None:
        self.shape = counts.shape
        self.total = np.asarray(counts.sum(axis=1)).ravel()
        self._layers = [_Layer(np.arange(self.shape[0]), counts)]
        self._layer_of = np.zeros(self.shape[0], dtype=np.intp)

    def replace(self, genes: NDArray[np.intp], counts: sp.csr_matrix) -> None:
        """Take other counts of these genes, (len(genes), cells), without stored zeros."""
        self.total[genes] = np.asarray(counts.sum(axis=1)).ravel()
        self._layer_of[genes] = len(self._layers)
        self._layers.append(_Layer(genes, counts))
        n_live = sum(int(np.diff(layer.counts.indptr)[live].sum()) for layer, live in self._live())
        if sum(layer.counts.nnz for layer in self._layers) > 2 * n_live:
            genes = np.concatenate([layer.genes[live] for layer, live in self._live()])
            merged = sp.vstack([layer.counts[live] for layer, live in self._live()], format="csr")
            self._layers = [_Layer(np.arange(self.shape[0]), merged[np.argsort(genes)])]
            self._layer_of[:] = 0

    def _live(self) -> list[tuple[_Layer, NDArray[np.bool_]]]:
        """Layers, and which of their genes no later one replaced."""
        return [(layer, self._layer_of[layer.genes] == number) for number, layer in enumerate(self._layers)]

    def depth(self) -> Array:
        """Total counts of each cell, (cells,)."""
        result: Array = sum(live.astype(float) @ layer.counts for layer, live in self._live())
        return result

    def mean(self, function: Callable[[Array], Array], depth: Array) -> Array:
        """Mean over cells of `function` (0 at 0) of the counts per 10k of cells of these depths, (genes,)."""
        per_count = CP10K / depth
        table = function(np.arange(1, _TABLED + 1)[:, None] * per_count).ravel()
        result = np.empty(self.shape[0])
        for layer in self._layers:
            result[layer.genes] = layer.sums(function, table, per_count)
        return result / self.shape[1]


class _Layer:
    """Counts of some genes, (genes, cells), and for each where its function stands in a table of counts and cells."""

    def __init__(self, genes: NDArray[np.intp], counts: sp.csr_matrix) -> None:
        self.genes, self.counts = genes, counts
        n_cells = counts.shape[1]
        place = counts.indices + (counts.data.astype(np.int64) - 1) * n_cells
        large = np.flatnonzero(counts.data > _TABLED)
        place[large] = _TABLED * n_cells + np.arange(len(large))
        self.large, self.cell_of_large = counts.data[large], counts.indices[large]
        shape = (counts.shape[0], _TABLED * n_cells + len(large))
        self.places = sp.csr_matrix((np.ones(len(place)), place, counts.indptr), shape=shape)

    def sums(self, function: Callable[[Array], Array], table: Array, per_count: Array) -> Array:
        """Sum over cells of `function` of the counts per 10k, (genes,)."""
        of_large = function(self.large * per_count[self.cell_of_large])
        result: Array = self.places @ np.concatenate([table, of_large])
        return result
