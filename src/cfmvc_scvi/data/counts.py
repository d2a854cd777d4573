"""Checks of a count matrix: one pass over all its values, whatever its storage."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cfmvc_scvi.data._text import counted, listing
from cfmvc_scvi.data.names import check_key
from cfmvc_scvi.errors import CFMVCWarning, DataError

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["CountRows", "check_counts", "convert_counts", "to_csr"]

logger = logging.getLogger(__name__)

MIN_TRAINING_CELLS = 3
BLOCK_VALUES = 1 << 22  # values held at a time: 16 MB as float32
_SAMPLED = 64
LARGEST_LOG_VALUE = 30.0  # log1p or log2 of any normalised count stays below
LARGEST_EXACT_HALF = 2048  # float16 holds every integer up to here

_PROBLEMS: dict[str, Callable[[NDArray[Any]], NDArray[np.bool_]]] = {
    "NaN": np.isnan,
    "infinite": np.isinf,
    "negative": lambda values: values < 0,
    "non-integer": lambda values: (values != np.rint(values)) & ~np.isnan(values),
}


@dataclass
class _Finding:
    """How many values have a problem, and the first of them."""

    n: int = 0
    cell: int = -1
    gene: int = -1
    value: float = np.nan


@dataclass
class _Scan:
    """What one pass over a count matrix found."""

    filled_cells: NDArray[np.bool_]
    filled_genes: NDArray[np.bool_]
    n_nonzero: int = 0
    largest: float = 0.0
    findings: dict[str, _Finding] = field(default_factory=lambda: {name: _Finding() for name in _PROBLEMS})


def check_counts(
    adata: AnnData, layer: str | None = None, *, training: bool = True, allow_non_integer: bool = False
) -> None:
    """Check that a matrix holds raw counts; every value is looked at once, backed files block by block.

    Parameters
    ----------
    adata
        Annotated cells.
    layer
        Layer with the counts; None is X.
    training
        The cells will be trained on: there must be enough of them, and not all empty.
    allow_non_integer
        Accept values that are not integers, such as counts corrected for ambient RNA.

    Raises
    ------
    UnknownConditionError
        If there is no such layer.
    DataError
        If the matrix is a dask array, not numeric, too small or empty, or has NaN, infinite, negative or (unless
        allowed) non-integer values. The first offending cell and gene are named.

    Warns
    -----
    CFMVCWarning
        If cells have no counts, if half-precision values cannot be exact, or if allowed non-integers look like
        logarithms.
    """
    matrix, where = _matrix(adata, layer)
    n_cells, n_genes = adata.shape
    minimum = MIN_TRAINING_CELLS if training else 1
    if n_cells < minimum or n_genes == 0:
        raise DataError(
            f"{where} has {counted(n_cells, 'cell')} and {counted(n_genes, 'gene')}; at least "
            f"{counted(minimum, 'cell')} and 1 gene are needed"
        )
    scan = _scan(matrix)
    _refuse_values(adata, scan, where)
    _refuse_fractions(adata, scan, where, layer, allow_non_integer)
    if training and scan.n_nonzero == 0:
        raise DataError(f"{where} is zero in all {n_cells} cells; {_remedy(adata, layer)}")
    _report_empty(adata, scan, where, training)
    if matrix.dtype == np.float16 and scan.largest > LARGEST_EXACT_HALF:
        warnings.warn(
            f"{where} is float16 and has values up to {scan.largest:g}; float16 rounds integers above "
            f"{LARGEST_EXACT_HALF}: store counts as float32 or integers",
            CFMVCWarning,
            stacklevel=2,
        )


def convert_counts(adata: AnnData, layer: str | None = None) -> bool:
    """Bring the counts into the storage that minibatches are read from fastest: CSR, where they are sparse in memory.

    The values stay the same; X or the layer is replaced in place, once. Dense and backed matrices are left as they are.

    Parameters
    ----------
    adata
        Annotated cells; not a view.
    layer
        Layer with the counts; None is X.

    Returns
    -------
    Whether the storage was changed.
    """
    matrix, where = _matrix(adata, layer)
    if not sparse.issparse(matrix) and _sparse_format(matrix) == "csc":
        logger.info("%s is backed and in CSC order, which is slow to read by cell; write it as CSR", where)
    if not sparse.issparse(matrix):
        return False
    converted = to_csr(matrix, where)
    if converted is matrix:
        return False
    if layer is None:
        adata.X = converted
    else:
        adata.layers[layer] = converted
    return True


class CountRows:
    """Rows of a count matrix in memory or in a file, of which only what is asked for is read.

    Parameters
    ----------
    matrix
        Counts (cells, genes): array, sparse matrix, or the data set of a backed file.
    rows
        Positions of the rows that this object has, increasing.
    """

    def __init__(self, matrix: Any, rows: NDArray[np.integer]) -> None:
        self._matrix, self._rows = matrix, np.asarray(rows)

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and genes."""
        return len(self._rows), int(self._matrix.shape[1])

    def __getitem__(self, chosen: slice | NDArray[np.integer]) -> sparse.csr_matrix:
        """Return some of the rows, given as a slice or by increasing positions, in memory, as float32."""
        rows = self._rows[chosen]
        if not len(rows):
            return sparse.csr_matrix((0, self.shape[1]), dtype=np.float32)
        first, end = int(rows[0]), int(rows[-1]) + 1
        near = end - first <= 2 * len(rows)  # a stretch of a file is read much faster than its single rows
        block = self._matrix[first:end][rows - first] if near else self._matrix[rows]
        return sparse.csr_matrix(block, dtype=np.float32)


def to_csr(matrix: Any, where: str) -> sparse.csr_matrix:
    """Return a sparse matrix or array of any format as a CSR matrix; one that is already is returned itself.

    Parameters
    ----------
    matrix
        Sparse matrix or array, shape (cells, genes).
    where
        Its name for the log.
    """
    if isinstance(matrix, sparse.csr_matrix):
        return matrix
    logger.info("converted %s from %s to csr_matrix", where, type(matrix).__name__)
    return sparse.csr_matrix(matrix)


def _matrix(adata: AnnData, layer: str | None) -> tuple[Any, str]:
    if layer is not None:
        check_key(layer, adata.layers.keys(), "adata.layers")
    matrix, where = (adata.X, "X") if layer is None else (adata.layers[layer], f"layers[{layer!r}]")
    if matrix is None:
        raise DataError(f"X is empty; {_remedy(adata, layer)}")
    if type(matrix).__module__.partition(".")[0] == "dask":
        raise DataError(f"{where} is a dask array; load it first: adata.{where} = adata.{where}.compute()")
    if matrix.dtype.kind not in "biuf":
        raise DataError(f"{where} has dtype {matrix.dtype}; counts are integers, or floats that hold integers")
    return matrix, where


def _scan(matrix: Any) -> _Scan:
    scan = _Scan(np.zeros(matrix.shape[0], dtype=bool), np.zeros(matrix.shape[1], dtype=bool))
    by_gene = _sparse_format(matrix) == "csc"
    major, minor = (scan.filled_genes, scan.filled_cells) if by_gene else (scan.filled_cells, scan.filled_genes)
    for start, block in _blocks(matrix, by_gene):
        values, locate = _values(block)
        nonzero = values != 0
        filled_major, filled_minor = _filled(block, nonzero)
        major[start : start + block.shape[0]] = filled_major
        minor |= filled_minor
        scan.n_nonzero += int(np.count_nonzero(nonzero))
        if values.size:
            scan.largest = max(scan.largest, float(values.max()))
        for name in () if _are_counts(values) else _problems(values.dtype):
            bad = _PROBLEMS[name](values)
            finding = scan.findings[name]
            n = int(np.count_nonzero(bad))
            if n and not finding.n:
                first = int(np.argmax(bad))
                row, column = locate(first)
                cell, gene = (column, start + row) if by_gene else (start + row, column)
                finding.cell, finding.gene, finding.value = cell, gene, float(values[first])
            finding.n += n
    return scan


def _are_counts(values: NDArray[Any]) -> bool:
    """Return whether no value has any problem: the usual case, in fewer passes than the search for each of them."""
    if values.dtype.kind == "f":
        return not values.size or bool(
            values.min() >= 0 and values.max() < np.inf and (values == np.rint(values)).all()
        )
    return not _problems(values.dtype) or not values.size or bool(values.min() >= 0)


def _problems(dtype: np.dtype[Any]) -> tuple[str, ...]:
    return {"f": tuple(_PROBLEMS), "i": ("negative",)}.get(dtype.kind, ())


def _blocks(matrix: Any, by_gene: bool) -> Iterator[tuple[int, Any]]:
    """Yield blocks of cells (of genes, transposed, for CSC) as a dense array or a CSR matrix, and where they start."""
    n_major, n_minor = matrix.shape[::-1] if by_gene else matrix.shape
    is_sparse = _sparse_format(matrix) is not None
    if sparse.issparse(matrix) and matrix.format not in ("csr", "csc"):
        matrix = matrix.tocsr()
    per_row = matrix.nnz // max(n_major, 1) if sparse.issparse(matrix) else n_minor
    step = max(1, BLOCK_VALUES // max(per_row, 1))
    for start in range(0, n_major, step):
        end = min(start + step, n_major)
        if sparse.issparse(matrix):  # a view: a slice would be a copy
            ends = matrix.indptr[start : end + 1]
            values = slice(ends[0], ends[-1])
            parts = matrix.data[values], matrix.indices[values], ends - ends[0]
            yield start, sparse.csr_matrix(parts, shape=(end - start, n_minor))
        else:
            block = matrix[:, start:end].T if by_gene else matrix[start:end]
            yield start, block if is_sparse else np.asarray(block)


def _sparse_format(matrix: Any) -> str | None:
    """Return the format of a sparse matrix, one on disk included (`anndata.abc.CSRDataset`); None if it is dense."""
    return getattr(matrix, "format", None)


def _values(block: Any) -> tuple[NDArray[Any], Callable[[int], tuple[int, int]]]:
    """Return the stored values of a block, and a function from a value's position to its row and column."""
    if not sparse.issparse(block):
        return block.reshape(-1), lambda position: divmod(position, block.shape[1])
    return block.data, lambda position: (
        int(np.searchsorted(block.indptr, position, side="right")) - 1,
        int(block.indices[position]),
    )


def _filled(block: Any, nonzero: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which rows and which columns of a block have a value other than zero."""
    if not sparse.issparse(block):
        table = nonzero.reshape(block.shape)
        return np.asarray(table.any(axis=1)), np.asarray(table.any(axis=0))
    columns = np.zeros(block.shape[1], dtype=bool)
    if nonzero.all():
        columns[block.indices[::_SAMPLED]] = True
        if not columns.all():  # most often a few values show that each column has one
            columns[block.indices] = True
        return np.diff(block.indptr) > 0, columns
    columns[block.indices[nonzero]] = True
    before = np.concatenate([[0], np.cumsum(nonzero)])
    return np.diff(before[block.indptr]) > 0, columns


def _refuse_values(adata: AnnData, scan: _Scan, where: str) -> None:
    remedies = {
        "NaN": "remove these cells or genes, or go back to the raw counts",
        "infinite": "remove these cells or genes, or go back to the raw counts",
        "negative": "counts are >= 0: pass the raw counts, not scaled or corrected values",
    }
    for name, remedy in remedies.items():
        finding = scan.findings[name]
        if finding.n:
            raise DataError(
                f"{where} has {counted(finding.n, f'{name} value')}, the first ({finding.value:g}) in "
                f"{_place(adata, finding)}; {remedy}"
            )


def _refuse_fractions(adata: AnnData, scan: _Scan, where: str, layer: str | None, allowed: bool) -> None:
    finding = scan.findings["non-integer"]
    if not finding.n:
        return
    share = finding.n / scan.n_nonzero
    looks_logged = scan.largest < LARGEST_LOG_VALUE and share > 0.5
    logged = f"{where} looks log-normalised (max {scan.largest:.3g}, {share:.0%} non-integer)".replace("%", " %")
    if allowed:
        if looks_logged:
            warnings.warn(
                f"{logged}; counts corrected for ambient RNA would do, logarithms will not", CFMVCWarning, stacklevel=3
            )
        return
    if looks_logged:
        raise DataError(f"{logged}; {_remedy(adata, layer)}")
    raise DataError(
        f"{where} has {counted(finding.n, 'non-integer value')} ({100 * share:.2g} % of those other than zero), the "
        f"first ({finding.value:g}) in {_place(adata, finding)}; {_remedy(adata, layer)}, or allow_non_integer=True "
        "for corrected counts"
    )


def _report_empty(adata: AnnData, scan: _Scan, where: str, training: bool) -> None:
    empty = ~scan.filled_cells
    if empty.any():
        warnings.warn(
            f"{counted(int(empty.sum()), 'cell')} without a count in {where}: {listing(adata.obs_names[empty])}; "
            "nothing is known about them: filter them, for example with scanpy.pp.filter_cells",
            CFMVCWarning,
            stacklevel=3,
        )
    silent = ~scan.filled_genes
    if training and silent.any():
        logger.info(
            "%s without a count in %s: %s", counted(int(silent.sum()), "gene"), where, listing(adata.var_names[silent])
        )


def _place(adata: AnnData, finding: _Finding) -> str:
    return f"cell {adata.obs_names[finding.cell]!r}, gene {adata.var_names[finding.gene]!r}"


def _remedy(adata: AnnData, layer: str | None) -> str:
    """Say which layer to pass, if one is named like raw counts."""
    names = [str(name) for name in adata.layers.keys() if name not in (None, layer)]
    found = [name for name in names if "count" in name.casefold() or "raw" in name.casefold()]
    return f"pass layer={found[0]!r}" if found else "pass raw counts, as X or as a layer"
