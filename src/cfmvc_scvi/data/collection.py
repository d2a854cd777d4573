"""Cells of a collection on disk, as `annbatch` writes it: annotations in memory, counts read by rows or minibatches."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr
from anndata import AnnData
from anndata.io import read_elem, sparse_dataset
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import sparse

from cfmvc_scvi._optional import require_extra
from cfmvc_scvi.data.names import check_key
from cfmvc_scvi.errors import DataError, MissingExtraError, UnsupportedError

__all__ = ["Collection", "CollectionCounts", "load_requests", "open_collection", "require_annbatch"]

_NEAR = 64  # rows: annbatch stores as many in a chunk, which is decoded as a whole
_EXTRA = "annbatch"
_MAKE = "Make one of h5ad or zarr files: annbatch.DatasetCollection(path).add_adatas(files)."


class CollectionCounts:
    """Counts of the data sets of a collection, one below the other: a matrix of which rows are read into memory.

    Parameters
    ----------
    parts
        Counts (cells, genes) of each data set, as stored: `anndata.abc.CSRDataset` or `zarr.Array`.
    """

    format = "csr"  # of what is read

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = list(parts)
        self._ends = np.cumsum([part.shape[0] for part in self.parts])
        self.shape = int(self._ends[-1]), int(self.parts[0].shape[1])
        self.dtype = np.result_type(*(part.dtype for part in self.parts))

    def __getitem__(self, rows: slice | NDArray[np.integer]) -> sparse.csr_matrix:
        """Return some rows, given as a slice or by increasing positions."""
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(self.shape[0])
            return self._stretch(start, stop)
        runs = np.split(rows, np.flatnonzero(np.diff(rows) > _NEAR) + 1) if len(rows) else []
        return self._stacked([self._stretch(int(run[0]), int(run[-1]) + 1)[run - run[0]] for run in runs])

    def _stretch(self, start: int, stop: int) -> sparse.csr_matrix:
        blocks = []
        for part, end in zip(self.parts, self._ends, strict=True):
            first = end - part.shape[0]
            if start < end and stop > first:
                block = part[max(start - first, 0) : min(stop, end) - first]
                # column numbers are stored in as few bytes as hold them, which scipy does not compute with
                blocks.append(
                    sparse.csr_matrix((block.data, block.indices.astype(np.int32), block.indptr), shape=block.shape)
                    if sparse.issparse(block)
                    else sparse.csr_matrix(block)
                )
        return self._stacked(blocks)

    def _stacked(self, blocks: Sequence[sparse.csr_matrix]) -> sparse.csr_matrix:
        if len(blocks) == 1:
            return blocks[0]
        return (
            sparse.vstack(blocks, format="csr") if blocks else sparse.csr_matrix((0, self.shape[1]), dtype=self.dtype)
        )


@dataclass(frozen=True)
class Collection:
    """Cells on disk.

    Attributes
    ----------
    annotations
        All cells with the columns that were asked for, and no counts.
    counts
        Their counts.
    """

    annotations: AnnData
    counts: CollectionCounts

    def minibatches(
        self, requests: Iterator[dict[str, Any]], n_batches: int
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """Read what `load_requests` asks for with annbatch's loader.

        Parameters
        ----------
        requests
            Requests of a pass.
        n_batches
            Number of minibatches.

        Yields
        ------
        Positions of the cells of a minibatch, and their counts `(cells, genes)`.

        Raises
        ------
        UnsupportedError
            If annbatch returns other cells than it was asked for, as its versions before 0.3 do.
        """
        wanted: deque[NDArray[np.intp]] = deque()
        sampler = _planned_sampler(_noted(requests, wanted), n_batches)
        loader = require_annbatch().Loader(batch_sampler=sampler, return_index=True, preload_to_gpu=False)
        for batch in loader.add_datasets(self.counts.parts):
            rows = wanted.popleft()
            if not np.array_equal(rows, batch["index"]):
                raise UnsupportedError(
                    "annbatch returned other cells than it was asked for; install a version of the extra 'annbatch'."
                )
            counts = batch["X"]
            dense = next((getattr(counts, name)() for name in ("toarray", "to_dense") if hasattr(counts, name)), counts)
            yield rows, np.asarray(dense, dtype=np.float32)


def require_annbatch() -> Any:
    """Import annbatch; raise MissingExtraError with what is to be installed, and by which Python."""
    try:
        return require_extra("annbatch", _EXTRA)
    except MissingExtraError as error:
        if sys.version_info >= (3, 12):
            raise
        running = ".".join(map(str, sys.version_info[:2]))
        raise MissingExtraError(f"{error}, by Python 3.12 or later (this is {running})") from error


def _noted(requests: Iterator[dict[str, Any]], wanted: deque[NDArray[np.intp]]) -> Iterator[dict[str, Any]]:
    """Pass requests on, and append the positions of the cells of each minibatch to `wanted`."""
    for request in requests:
        rows = np.concatenate([np.arange(part.start, part.stop) for part in request["requests"]])
        wanted.extend(rows[split] for split in request["splits"])
        yield request


def _planned_sampler(requests: Iterator[dict[str, Any]], count: int) -> Any:
    """Return a sampler of annbatch that asks for what `requests` says."""
    base: Any = require_extra("annbatch.abc", _EXTRA).Sampler

    class PlannedSampler(base):
        batch_size, shuffle = None, False  # each request says how it is split

        def n_batches(self, n_obs: int) -> int:
            return count

        def validate(self, n_obs: int) -> None:
            pass

        def _sample(self, n_obs: int) -> Iterator[dict[str, Any]]:
            return requests

    return PlannedSampler()


def load_requests(
    rows: NDArray[np.integer],
    n_cells: int,
    n_batches: int,
    *,
    chunk_size: int,
    preload_nchunks: int,
    rng: Generator | None = None,
) -> Iterator[dict[str, Any]]:
    """Plan a pass over some cells: which stretches are read together, and how their cells are dealt to minibatches.

    Each cell comes once. Stretches of `chunk_size` cells are read `preload_nchunks` at a time, and minibatches hold
    cells of one such reading, so that the order is as random as the collection is shuffled.

    Parameters
    ----------
    rows
        Positions of the cells; others that stand between them are read and left out.
    n_cells
        Cells of the collection.
    n_batches
        Number of minibatches, about equal in size.
    chunk_size, preload_nchunks
        Cells in a stretch, and stretches in memory.
    rng
        Draws the order of stretches and cells; None keeps that of the collection.

    Yields
    ------
    Requests in the words of annbatch: ``requests``, slices of the collection, and ``splits``, the minibatches as
    positions in what the slices give.
    """
    rows = np.sort(rows)
    chunks, first = np.unique(rows // chunk_size, return_index=True)
    members = np.split(rows, first[1:])
    sizes = np.diff(first, append=len(rows))
    order = np.arange(len(chunks)) if rng is None else rng.permutation(len(chunks))
    pools = _pools(order, sizes, min(n_batches, -(-len(chunks) // preload_nchunks)))
    held = np.array([sizes[pool].sum() for pool in pools])
    further = np.round(np.cumsum(held) / held.sum() * (n_batches - len(pools)))
    for pool, n_splits in zip(pools, 1 + np.diff(further, prepend=0).astype(int), strict=True):
        pool = np.append(pool[pool < len(chunks) - 1], pool[pool == len(chunks) - 1])  # a short one comes last
        slices = [slice(int(c) * chunk_size, min(int(c + 1) * chunk_size, n_cells)) for c in chunks[pool]]
        starts = np.cumsum([0, *(part.stop - part.start for part in slices)])
        places = [members[i] - part.start + start for i, part, start in zip(pool, slices, starts, strict=False)]
        wanted = np.concatenate(places)
        if rng is not None:
            rng.shuffle(wanted)
        yield {"requests": slices, "splits": np.array_split(wanted, n_splits)}


def _pools(order: NDArray[np.intp], sizes: NDArray[np.intp], n_pools: int) -> list[NDArray[np.intp]]:
    """Divide chunks among readings; none may have one or two cells only, which batch norm cannot take."""
    while True:
        pools = np.array_split(order, n_pools)
        if n_pools == 1 or min(sizes[pool].sum() for pool in pools) >= 3:
            return pools
        n_pools -= 1


def open_collection(
    source: Any,
    layer: str | None = None,
    *,
    columns: Sequence[str] = (),
    obsm: Sequence[str] = (),
    varm: Sequence[str] = (),
    uns: dict[str, Any] | None = None,
) -> Collection:
    """Open a collection.

    Parameters
    ----------
    source
        Path of a collection, an `annbatch.DatasetCollection`, or the zarr groups of its data sets.
    layer
        Layer with the counts; None is X.
    columns
        Columns of `obs` to read.
    obsm, varm
        Keys to read; those of `varm` where they are.
    uns
        Unstructured annotations to put beside them, which collections do not keep.

    Raises
    ------
    UnknownConditionError
        If a column, key or layer is missing.
    DataError
        If there is no collection, or its data sets have different genes or counts that are neither dense nor CSR.
    """
    groups = _groups(source)
    names = [_index(group["var"]) for group in groups]
    for number, other in enumerate(names):
        if not np.array_equal(names[0], other):
            raise DataError(
                f"Data set {number} of the collection has other genes than the first, or another order of them; write "
                "the collection with annbatch.DatasetCollection.add_adatas, which brings them in line."
            )
    index = np.concatenate([_index(group["obs"]) for group in groups])
    frame = pd.DataFrame({name: _joined([_column(g["obs"], name) for g in groups]) for name in columns}, index=index)
    for key in obsm:
        check_key(key, _keys(groups[0], "obsm"), "obsm")
    annotations = AnnData(
        obs=frame,
        var=pd.DataFrame(index=names[0]),
        obsm={key: np.concatenate([np.asarray(read_elem(group[f"obsm/{key}"])) for group in groups]) for key in obsm},
        varm={key: read_elem(groups[0][f"varm/{key}"]) for key in varm if key in _keys(groups[0], "varm")},
        uns=uns,
    )
    return Collection(annotations, CollectionCounts([_counts(group, layer) for group in groups]))


def _groups(source: Any) -> list[Any]:
    """Return the zarr groups of the data sets of a collection."""
    if isinstance(source, str | Path):
        if not Path(source).exists():
            raise DataError(f"There is no collection at '{source}'. {_MAKE}")
        source = require_annbatch().DatasetCollection(zarr.open_group(str(source), mode="r"))
    groups = list(source)
    if not groups:
        raise DataError(f"The collection has no data sets. {_MAKE}")
    return groups


def _index(frame: Any) -> NDArray[np.str_]:
    """Return the names of the rows of a data frame on disk."""
    return np.array([str(name) for name in read_elem(frame[frame.attrs["_index"]])], dtype=str)


def _keys(group: Any, name: str) -> list[str]:
    return list(group[name].keys()) if name in group else []


def _column(frame: Any, name: str) -> pd.Series:
    check_key(name, [str(key) for key in frame.attrs["column-order"]], "obs")
    values = read_elem(frame[name])
    texts = isinstance(values, np.ndarray) and values.dtype.kind == "T"  # which not every pandas takes
    return pd.Series(values.astype(object) if texts else values)


def _joined(columns: Sequence[pd.Series]) -> Any:
    """Return the columns of the data sets as one; categories, where all have them, are kept."""
    if all(isinstance(column.dtype, pd.CategoricalDtype) for column in columns):
        return pd.api.types.union_categoricals([column.array for column in columns])
    return pd.concat(columns, ignore_index=True).array


def _counts(group: Any, layer: str | None) -> Any:
    """Return the counts of a data set, as stored."""
    if layer is not None:
        check_key(layer, _keys(group, "layers"), "layers")
    where = "X" if layer is None else f"layers/{layer}"
    stored = group[where]
    kind = stored.attrs.get("encoding-type")
    if kind not in ("array", "csr_matrix"):
        raise DataError(f"{where} of the collection is stored as {kind!r}; counts must be dense or CSR.")
    return stored if kind == "array" else sparse_dataset(stored)
