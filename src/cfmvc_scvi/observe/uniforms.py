"""Counter-based uniforms: the fixed randomness of each cell, whatever its companions."""

from __future__ import annotations

__all__ = ["cell_choice", "cell_uniforms", "count_uniforms"]

import hashlib
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from cfmvc_scvi.errors import DataError

_BITS = 52  # (k + 1/2) / 2^52 is exact in float64 and never 0 or 1; with 53 bits the last one would round to 1
_BLOCK = 2**16  # integers turned into floats at a time: stay in the cache
_GOLDEN, _MIX_1, _MIX_2 = (np.uint64(value) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def cell_uniforms(seed: int, cell_names: Sequence[str], n_genes: int, stream: str) -> NDArray[np.float64]:
    """Uniforms in the open interval (0, 1), one per cell and gene, each a function of its own address only.

    u_ig = (floor(r / 2^12) + 1/2) / 2^52 with r the g-th output of Philox-4x64 whose key is the 128-bit BLAKE2b digest
    of (seed, stream, name of cell i). The order of the cells, the size of a minibatch and the choice of a subset change
    nothing; neither does asking for more genes.

    Parameters
    ----------
    seed
        Any integer.
    cell_names
        Names of the cells, (cells,). Cells of equal name have equal uniforms.
    n_genes
        Uniforms per cell; the g-th belongs to the gene at position g.
    stream
        What the uniforms are for, such as "thinning"; different streams are independent.

    Returns
    -------
    Uniforms (cells, genes).

    Raises
    ------
    DataError
        If `cell_names` is a single string, a name is not a string or `n_genes` is negative.

    Notes
    -----
    No global state. Cost: about 10 ns per uniform and 5 us per cell.

    References
    ----------
    Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011.

    Examples
    --------
    >>> both = cell_uniforms(0, ["a", "b"], 5, "thinning")
    >>> bool((cell_uniforms(0, ["b"], 5, "thinning") == both[1:]).all())
    True
    """
    if n_genes < 0:
        raise DataError(f"n_genes is {n_genes}; pass the number of genes, 0 or more.")
    keys = _keys(seed, cell_names, stream)
    raw = np.empty((len(keys), n_genes), dtype=np.uint64)
    generator = np.random.Philox(key=0)
    state: Any = generator.state
    for i, key in enumerate(keys):
        state["state"]["key"] = key
        generator.state = state
        raw[i] = generator.random_raw(n_genes)
    return _open_unit(raw)


def count_uniforms(seed: int, cell_names: Sequence[str], counts: sp.csr_matrix, stream: str) -> sp.csr_matrix:
    """Uniforms in (0, 1) where cells have counts, each a function of seed, stream, cell and gene only.

    u_ig = (floor(r / 2^12) + 1/2) / 2^52 with r output g of SplitMix64 whose state begins at the first half of the key
    of cell i (see `cell_uniforms`): any output is had without those before it.

    Parameters
    ----------
    seed, cell_names, stream
        As in `cell_uniforms`. The numbers are others than those.
    counts
        CSR (cells, genes); only the places of its stored values matter.

    Returns
    -------
    CSR with the pattern of `counts`.

    Raises
    ------
    DataError
        If `cell_names` is a single string, a name is not a string, or there is not one per row of `counts`.

    Notes
    -----
    No global state. Cost: about 5 ns per stored count and 1 us per cell.

    References
    ----------
    Steele, Lea and Flood, Fast splittable pseudorandom number generators, OOPSLA 2014.
    """
    keys = _keys(seed, cell_names, stream)[:, 0]
    if len(keys) != counts.shape[0]:
        raise DataError(f"cell_names has {len(keys)} names for {counts.shape[0]} cells; pass one for each.")
    start = np.repeat(keys, np.diff(counts.indptr))
    uniforms = np.empty(len(start))
    for first in range(0, len(start), _BLOCK):
        block = slice(first, first + _BLOCK)
        uniforms[block] = _split_mix(start[block], counts.indices[block].astype(np.uint64))
    return sp.csr_matrix((uniforms, counts.indices, counts.indptr), counts.shape)


def cell_choice(seed: int, cell_names: Sequence[str], probabilities: ArrayLike, stream: str) -> NDArray[np.int64]:
    """Draw one of several categories for each cell, each draw a function of the cell's own name only.

    The draw of cell i is the inverse distribution function of the categories at a uniform of the cell, that of gene 0
    in `count_uniforms`.

    Parameters
    ----------
    seed
        Any integer.
    cell_names
        Names of the cells, (cells,).
    probabilities
        Weights of the categories, not negative, of positive sum, (categories,); they are normalised.
    stream
        What the draw is for; different streams are independent.

    Returns
    -------
    Indices of categories, (cells,). A category of zero weight is never drawn.

    Raises
    ------
    DataError
        If the weights are not a vector of finite, non-negative numbers with a positive sum.
    """
    weights = np.asarray(probabilities, dtype=np.float64)
    if weights.ndim != 1 or not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum() > 0:
        raise DataError(
            f"probabilities has shape {weights.shape} and sum {weights.sum()}; pass a vector of finite, non-negative "
            "weights of positive sum."
        )
    cumulative = np.cumsum(weights / weights.max())
    keys = _keys(seed, cell_names, stream)[:, 0]
    uniforms = _split_mix(keys, np.zeros_like(keys))
    return np.searchsorted(cumulative / cumulative[-1], uniforms, side="right")


def _keys(seed: int, cell_names: Sequence[str], stream: str) -> NDArray[np.uint64]:
    """Return the 128-bit BLAKE2b digest of (seed, stream, name) of each cell, (cells, 2)."""
    if isinstance(cell_names, str):
        raise DataError(f"cell_names is the single string {cell_names!r}; pass a list of names.")
    prefix = f"{operator.index(seed)},{len(stream)},{stream},"
    digests = []
    for i, name in enumerate(cell_names):
        if not isinstance(name, str):
            raise DataError(f"Cell {i} has the name {name!r} of type {type(name).__name__}; pass names as strings.")
        text = (prefix + name).encode("utf-8", "surrogatepass")
        digests.append(hashlib.blake2b(text, digest_size=16).digest())
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64).reshape(-1, 2)


def _split_mix(start: NDArray[np.uint64], output: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return uniforms of this output, from 0, of SplitMix64 of each state, in the memory of `output`."""
    raw = output
    raw += np.uint64(1)
    raw *= _GOLDEN
    raw += start
    for shift, factor in ((30, _MIX_1), (27, _MIX_2)):
        raw ^= raw >> np.uint64(shift)
        raw *= factor
    raw ^= raw >> np.uint64(31)
    return _open_unit(raw)


def _open_unit(raw: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Turn random 64-bit integers into uniforms of the open unit interval, in the memory of `raw`."""
    raw >>= np.uint64(64 - _BITS)
    uniforms = raw.view(np.float64)
    integers, floats = raw.ravel(), uniforms.ravel()  # views: raw is contiguous
    for start in range(0, raw.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        floats[block] = (integers[block] + 0.5) * 2.0**-_BITS
    return uniforms
