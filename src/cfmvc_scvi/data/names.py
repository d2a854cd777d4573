"""Names of genes, cells and keys: found, refused with close matches, and matched between data and model."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cfmvc_scvi.data._text import counted, did_you_mean, listing
from cfmvc_scvi.errors import CFMVCWarning, DataError, UnknownConditionError

__all__ = ["check_key", "check_names", "gene_positions", "refuse_new_categories", "take_genes"]

logger = logging.getLogger(__name__)


def check_key(key: str, known: Iterable[Any], where: str) -> None:
    """Refuse a key that a container does not have.

    Parameters
    ----------
    key
        Key that is asked for.
    known
        Keys of the container.
    where
        Name of the container for the message, for example ``"adata.obs"``.

    Raises
    ------
    UnknownConditionError
        If the key is not there (a `KeyError`).
    """
    names = list(known)
    if key not in names:
        texts = [str(name) for name in names if name is not None]  # anndata 0.13 lists X as the layer None
        raise UnknownConditionError(
            f"{key!r} is not in {where}, which has: {listing(texts, 10)}.{did_you_mean(str(key), texts)}"
        )


def check_names(cells: Any) -> None:
    """Check that genes, and as far as possible cells, have names of their own.

    Parameters
    ----------
    cells
        Annotated cells: an AnnData, or what else has `var_names` and `obs_names`.

    Raises
    ------
    DataError
        If gene names repeat.

    Warns
    -----
    CFMVCWarning
        If cell names repeat: the random numbers of a cell are keyed by its name, so its namesakes share them.
    """
    repeated = _repeated(cells.var_names)
    if repeated:
        raise DataError(
            f"{counted(len(repeated), 'gene name')} occur more than once: {listing(repeated)}; "
            "call adata.var_names_make_unique() or sum these genes"
        )
    repeated = _repeated(cells.obs_names)
    if repeated:
        warnings.warn(
            f"{counted(len(repeated), 'cell name')} occur more than once: {listing(repeated)}; namesakes share "
            "their random numbers in predictions: call adata.obs_names_make_unique()",
            CFMVCWarning,
            stacklevel=2,
        )


def gene_positions(own: Sequence[str], wanted: Sequence[str], pad_missing: bool = False) -> NDArray[np.intp]:
    """Return where each gene of a model stands among those of the data.

    Parameters
    ----------
    own
        Genes of the data, each once.
    wanted
        Genes of the model, in its order.
    pad_missing
        Accept genes that the data lack.

    Returns
    -------
    Positions in `own`, shape (genes of the model,); -1 where a gene is missing.

    Raises
    ------
    DataError
        If no gene is shared, or (without `pad_missing`) genes are missing.

    Warns
    -----
    CFMVCWarning
        If genes are padded.
    """
    where = {name: position for position, name in enumerate(own)}
    positions = np.array([where.get(name, -1) for name in wanted], dtype=np.intp)
    missing = [name for name, position in zip(wanted, positions, strict=True) if position < 0]
    if len(missing) == len(wanted):
        raise DataError(
            f"no gene is shared with the model: it has {listing(wanted, 3)}; the data have {listing(own, 3)}. Use the "
            "same kind of names in both (symbols or identifiers) before setup"
        )
    if missing and not pad_missing:
        raise DataError(
            f"{counted(len(missing), 'gene')} of the model not in the data: {listing(missing)}; add them, or pass "
            "pad_missing=True to count them as zero"
        )
    if missing:
        warnings.warn(
            f"{counted(len(missing), 'gene')} of the model not in the data, counted as zero: {listing(missing)}; "
            "predictions are less certain, most of all for these genes",
            CFMVCWarning,
            stacklevel=3,
        )
    n_extra = len(own) - (len(wanted) - len(missing))
    logger.info("reordered genes by name to match the model; %s not of the model left out", counted(n_extra, "gene"))
    return positions


def take_genes(matrix: Any, positions: NDArray[np.intp]) -> Any:
    """Return columns of a matrix (cells, genes); position -1 is a column of zeros."""
    found = positions >= 0
    if sparse.issparse(matrix):
        coo = matrix.tocsc()[:, positions[found]].tocoo()
        columns = np.flatnonzero(found)[coo.col]
        return sparse.csr_matrix((coo.data, (coo.row, columns)), shape=(matrix.shape[0], len(positions)))
    taken = np.zeros((matrix.shape[0], len(positions)), dtype=matrix.dtype)
    taken[:, found] = np.asarray(matrix)[:, positions[found]]
    return taken


def refuse_new_categories(column: str, new: Sequence[Any], known: Sequence[Any]) -> None:
    """Raise UnknownConditionError if a column of cells has categories that a model does not know."""
    if len(new):
        raise UnknownConditionError(
            f"obs[{column!r}] has categories unknown to the model: {listing(list(map(repr, new)))}. "
            f"Known: {listing(known)}. Correct the labels, leave these cells out, or train with cells of them."
            + did_you_mean(str(new[0]), map(str, known))
        )


def _repeated(names: Iterable[Any]) -> list[Any]:
    """Return the names that occur more than once, in the order of their second appearance."""
    seen: set[Any] = set()
    twice: dict[Any, None] = {}
    for name in names:
        if name in seen:
            twice[name] = None
        seen.add(name)
    return list(twice)
