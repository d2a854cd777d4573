"""From the body of a request to cells and a question, and from an answer to the body of a response."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from cfmvc_scvi.config import SolverConfig
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.runtime import Cells, Prediction, Question
from cfmvc_scvi.serve._schema import CounterfactualHeader, EncodeHeader
from cfmvc_scvi.serve.config import Limits
from cfmvc_scvi.wire import ARROW, JSON, NPZ, arrow_head, arrow_rows, read_arrow, read_npz, write_npz

__all__ = ["RefusedError", "as_dict", "as_npz", "head_and_rows", "question_of", "read_cells", "rows_of"]

Header = TypeVar("Header", bound=EncodeHeader)


class RefusedError(Exception):
    """A request that is refused with this status and text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


def read_cells(
    body: bytes, content_type: str, header_type: type[Header], request_type: type[BaseModel], limits: Limits
) -> tuple[Header, Cells]:
    """Return the header of a request and its cells.

    Parameters
    ----------
    body, content_type
        As sent.
    header_type, request_type
        Models of the header, and of a whole request in JSON.
    limits
        What is accepted.

    Raises
    ------
    RefusedError
        With status 413 (too much), 415 (another type) or 422 (not what the schema says).
    """
    kind = content_type.partition(";")[0].strip().lower()
    try:
        if kind == JSON:
            request: Any = request_type.model_validate_json(body)
            header, counts = request, _rectangle(request.counts, len(request.genes))
            if len(counts) > limits.json_cells:
                raise RefusedError(413, f"{len(counts)} cells in JSON; at most {limits.json_cells}: send npz or Arrow")
        elif kind == NPZ:
            values, arrays = read_npz(body, limits.unpacked_bytes)
            header = header_type.model_validate(values)
            counts = _from_arrays(arrays, len(header.genes), limits)
        elif kind == ARROW:
            values, counts, _ = read_arrow(body, "genes")
            header = header_type.model_validate(values)
        else:
            raise RefusedError(415, f"send {JSON}, {NPZ} or {ARROW}")
        if counts.shape[0] > limits.cells:
            raise RefusedError(413, f"{counts.shape[0]} cells; at most {limits.cells} are accepted at once")
        names = header.names if header.names is not None else [str(number) for number in range(counts.shape[0])]
        return header, Cells(counts, header.obs, names, header.genes)
    except OverflowError as error:
        raise RefusedError(413, str(error)) from error
    except DataError as error:
        raise RefusedError(422, str(error)) from error
    except ValidationError as error:
        raise RefusedError(422, _first_errors(error)) from error


def question_of(header: CounterfactualHeader, limits: Limits, n_cells: int) -> Question:
    """Return what is asked; RefusedError if it would cost more than is allowed."""
    solver = header.solver
    if solver is not None and solver.n_steps > limits.steps:
        raise RefusedError(422, f"n_steps is {solver.n_steps}; at most {limits.steps} are accepted")
    if header.n_samples > limits.samples:
        raise RefusedError(422, f"n_samples is {header.n_samples}; at most {limits.samples} are accepted")
    if header.n_samples * n_cells > limits.cells:
        raise RefusedError(413, f"{n_cells} cells {header.n_samples} times; at most {limits.cells} at once")
    values = header.model_dump(exclude={"genes", "obs", "names", "pad_missing", "solver", "counts"})
    if solver is None:
        return Question(**values)
    return Question(**values, solver=SolverConfig(solver.method, solver.n_steps))


def rows_of(cells: Cells, rows: slice) -> Cells:
    """Return some of the cells."""
    obs = {name: list(values)[rows] for name, values in cells.obs.items()}
    return Cells(cells.X[rows], obs, cells.obs_names[rows], cells.var_names)


def as_dict(answer: Prediction) -> dict[str, Any]:
    """Return a prediction as plain values."""
    matrix = None if answer.X is None else answer.dense.tolist()
    return {
        **_described(answer),
        "counts": matrix,
        "latent": answer.obsm["X_cfmvc"].tolist(),
        "counterfactual_latent": answer.obsm["X_cfmvc_counterfactual"].tolist(),
    }


def as_npz(answer: Prediction) -> bytes:
    """Return a prediction as npz: the counts in CSR, expected counts dense."""
    arrays: dict[str, NDArray] = {
        "latent": answer.obsm["X_cfmvc"],
        "counterfactual_latent": answer.obsm["X_cfmvc_counterfactual"],
    }
    if isinstance(answer.X, sp.csr_matrix):
        arrays |= {"data": answer.X.data, "indices": answer.X.indices, "indptr": answer.X.indptr}
    elif answer.X is not None:
        arrays["counts"] = answer.X
    return write_npz(_described(answer), arrays)


def head_and_rows(answer: Prediction, is_first: bool) -> bytes:
    """Return a part of an Arrow stream: the schema before the first cells; the names of later ones are not repeated."""
    latents = {"latent": answer.obsm["X_cfmvc"], "counterfactual_latent": answer.obsm["X_cfmvc_counterfactual"]}
    matrix = answer.X if answer.X is not None else sp.csr_matrix((len(answer.obs_names), len(answer.var_names)))
    head = arrow_head({**_described(answer), "has_counts": answer.X is not None}, list(latents)) if is_first else b""
    return head + arrow_rows(matrix, latents)


def _described(answer: Prediction) -> dict[str, Any]:
    obs = {
        name: [getattr(value, "item", lambda v=value: v)() for value in values] for name, values in answer.obs.items()
    }
    names, genes = ([str(name) for name in values] for values in (answer.obs_names, answer.var_names))
    return {"names": names, "genes": genes, "obs": obs, "provenance": answer.uns["cfmvc"]}


def _rectangle(counts: list[list[float]], n_genes: int) -> NDArray[np.float32]:
    wrong = sum(len(row) != n_genes for row in counts)
    if wrong:
        raise DataError(f"{wrong} of {len(counts)} cells have another number of counts than the {n_genes} genes")
    return np.array(counts, dtype=np.float32)


def _from_arrays(arrays: Mapping[str, NDArray], n_genes: int, limits: Limits) -> Any:
    if set(arrays) == {"counts"}:
        counts = arrays["counts"]
        if counts.ndim != 2 or counts.shape[1] != n_genes or not len(counts):
            raise DataError(f"the counts have shape {counts.shape}; send (cells, {n_genes}), one cell at least")
        return counts
    if set(arrays) != {"data", "indices", "indptr"}:
        raise DataError("send the counts as one array `counts`, or as CSR: `data`, `indices` and `indptr`")
    data, indices, indptr = (arrays[name] for name in ("data", "indices", "indptr"))
    if not all(array.ndim == 1 and len(array) for array in (data, indices, indptr)):
        raise DataError("data, indices and indptr must be vectors with entries")
    if any(array.dtype.kind not in "iu" for array in (indices, indptr)) or len(indptr) - 1 > limits.cells:
        raise DataError(f"indices and indptr must be whole numbers, of at most {limits.cells} cells")
    try:
        matrix = sp.csr_matrix(
            (data, indices.astype(np.int64), indptr.astype(np.int64)), shape=(len(indptr) - 1, n_genes)
        )
        matrix.check_format(full_check=True)
    except ValueError as error:
        raise DataError(f"data, indices and indptr are no CSR matrix of {n_genes} genes: {error}") from error
    return matrix


def _first_errors(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    places = [f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in found[:3]]
    return "; ".join(places) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
