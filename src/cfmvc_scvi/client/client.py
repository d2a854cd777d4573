"""Questions to a served model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from cfmvc_scvi._optional import require_extra
from cfmvc_scvi.config import SolverConfig
from cfmvc_scvi.errors import CFMVCError, DataError
from cfmvc_scvi.wire import NPZ, read_npz, write_npz

__all__ = ["Client", "ServiceError"]

_TOKEN_VARIABLE = "CFMVC_SCVI_TOKEN"
_LARGEST_ANSWER = 2**32

#: Header and arrays of a message.
Answer: TypeAlias = tuple[dict[str, Any], dict[str, NDArray]]


class ServiceError(CFMVCError, RuntimeError):
    """The service did not answer; the message is its own where it was reached.

    Parameters
    ----------
    text
        What the service said, or why it was not reached.
    status
        Of HTTP; None if it was not reached.
    request_id
        By which the log of the service has it.
    """

    def __init__(self, text: str, status: int | None = None, request_id: str | None = None) -> None:
        super().__init__(text if status is None else f"{text} (status {status}, request {request_id})")
        self.status, self.request_id = status, request_id


class Client:
    """A served model, asked about the cells of an AnnData.

    Genes are matched by name. Of `obs`, only the columns that the model reads are sent; of `X`, raw counts.

    Parameters
    ----------
    url
        Address of the service.
    token
        What the service asks for; None is that of the environment variable CFMVC_SCVI_TOKEN.
    cells_at_a_time
        Cells of one request; more are asked about in several. It changes nothing else.
    timeout
        Seconds to wait for an answer.
    transport
        How requests travel, as of `httpx.Client`; None is the network.

    Examples
    --------
    >>> with Client("http://127.0.0.1:8000") as client:  # doctest: +SKIP
    ...     predicted = client.counterfactual(adata, perturbation="IFNb")
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        token: str | None = None,
        cells_at_a_time: int = 1000,
        timeout: float = 150.0,
        transport: Any = None,
    ) -> None:
        token = token or os.environ.get(_TOKEN_VARIABLE)
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        self._httpx = require_extra("httpx", "client")
        self._url = url
        self._http = self._httpx.Client(base_url=url, headers=headers, timeout=timeout, transport=transport)
        self._cells_at_a_time = cells_at_a_time
        self._card: dict[str, Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def model(self) -> dict[str, Any]:
        """Return what the model knows: genes, perturbations, contexts, columns, limits; asked for once.

        Raises
        ------
        ServiceError
            If the service does not answer.
        """
        if self._card is None:
            self._card = self._answer("GET", "/v1/model").json()
        return self._card

    def encode(
        self,
        adata: AnnData,
        part: Literal["intrinsic", "technical", "both"] = "intrinsic",
        *,
        pad_missing: bool = False,
    ) -> NDArray[np.float64]:
        """Return the latents of cells, as `CFMVC.get_latent_representation`.

        Parameters
        ----------
        adata
            Cells with raw counts in X and the columns of the model.
        part
            Which block of the latent.
        pad_missing
            Count genes of the model that the cells lack as zero.

        Raises
        ------
        ServiceError
            If the service does not answer, or refuses the cells.
        DataError
            If there is no such part, or a column that the model reads lacks values.
        """
        n = self.model()["n_intrinsic"]
        columns = {"intrinsic": slice(0, n), "technical": slice(n, None), "both": slice(None)}
        if part not in columns:
            raise DataError(f"part is {part!r}; choose one of {', '.join(columns)}.")
        answers = [self._ask("/v1/encode", block, {"pad_missing": pad_missing}) for block in self._blocks(adata)]
        return np.concatenate([arrays["mean"] for _, arrays in answers])[:, columns[part]]

    def counterfactual(
        self,
        adata: AnnData,
        *,
        perturbation: str | None = None,
        dose: float | None = None,
        labels: str | None = None,
        batch: str | None = None,
        output: Literal["counts", "rate", "normalized", "latent"] = "counts",
        n_samples: int = 1,
        seed: int = 0,
        strength: float = 1.0,
        guidance_scale: float = 1.0,
        heterogeneity: float = 1.0,
        solver: SolverConfig | None = None,
        pad_missing: bool = False,
    ) -> AnnData:
        """Predict what these very cells would look like under another condition.

        Parameters
        ----------
        adata
            Cells with raw counts in X and the columns of the model.
        perturbation, dose, labels, batch, output, n_samples, seed, strength, guidance_scale, heterogeneity, solver
            As of `CFMVC.predict_counterfactual`.
        pad_missing
            Count genes of the model that the cells lack as zero.

        Returns
        -------
        The AnnData that `CFMVC.predict_counterfactual` returns.

        Raises
        ------
        ServiceError
            If the service does not answer, or refuses cells or question.
        DataError
            If a column that the model reads lacks values.
        """
        asked: dict[str, Any] = {"perturbation": perturbation, "dose": dose, "labels": labels, "batch": batch}
        scales = {"strength": strength, "guidance_scale": guidance_scale, "heterogeneity": heterogeneity}
        asked |= scales | {"output": output, "n_samples": n_samples, "seed": seed, "pad_missing": pad_missing}
        asked["solver"] = None if solver is None else asdict(solver)
        header = {name: value for name, value in asked.items() if value is not None}
        return _assembled(adata, [self._ask("/v1/counterfactual", block, header) for block in self._blocks(adata)])

    def _blocks(self, adata: AnnData) -> list[AnnData]:
        size = self._cells_at_a_time
        return [adata[start : start + size] for start in range(0, max(adata.n_obs, 1), size)]

    def _answer(self, method: str, route: str, **content: Any) -> Any:
        try:
            response = self._http.request(method, route, **content)
        except self._httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise ServiceError(f"no answer from {self._url}: {reason}; is the service running there?") from error
        _check(response)
        return response

    def _ask(self, route: str, cells: AnnData, header: Mapping[str, Any]) -> Answer:
        columns = self.model()["columns"]
        named = [columns[name] for name in ("perturbation", "dose", "labels", "batch", "sample")]
        wanted = [*(name for name in named if name), *columns["categories"], *columns["continuous"]]
        obs = {name: _plain(cells, name) for name in wanted if name in cells.obs}
        names, genes = ([str(name) for name in index] for index in (cells.obs_names, cells.var_names))
        counts = sp.csr_matrix(cells.X, dtype=np.float32)
        arrays = {"data": counts.data, "indices": counts.indices, "indptr": counts.indptr}
        if not counts.nnz:
            arrays = {"counts": counts.toarray()}
        body = write_npz({**header, "obs": obs, "names": names, "genes": genes}, arrays)
        response = self._answer("POST", route, content=body, headers={"content-type": NPZ})
        return read_npz(response.content, _LARGEST_ANSWER)


def _assembled(adata: AnnData, answers: Sequence[Answer]) -> AnnData:
    """Return the answers to blocks of cells below each other; all cells of a draw before those of the next."""
    told, genes = answers[0][0], answers[0][0]["genes"]
    n_draws = told["provenance"]["arguments"]["n_samples"]
    numbers = np.concatenate([np.arange(len(header["names"])).reshape(n_draws, -1) for header, _ in answers], axis=1)
    block = np.repeat(np.arange(len(answers)), [len(header["names"]) // n_draws for header, _ in answers])
    starts = np.cumsum([0, *(len(header["names"]) for header, _ in answers)])
    order = (starts[block] + numbers).ravel()

    def column(values: Iterable[Sequence[Any]]) -> list[Any]:
        together = [value for part in values for value in part]
        return [together[row] for row in order]

    obs = adata.obs[[name for name in adata.obs if not str(name).startswith("_scvi")]]
    obs = obs.iloc[np.tile(np.arange(adata.n_obs), n_draws)].copy()
    obs.index = pd.Index(column(header["names"] for header, _ in answers))
    for name in told["obs"]:
        obs[name] = column(header["obs"][name] for header, _ in answers)
    matrices = [_matrix(arrays, len(genes)) for _, arrays in answers]
    matrix = None
    if matrices[0] is not None:
        matrix = (sp.vstack(matrices, format="csr") if sp.issparse(matrices[0]) else np.concatenate(matrices))[order]
    result = AnnData(matrix, obs, pd.DataFrame(index=genes))
    for key, name in (("X_cfmvc", "latent"), ("X_cfmvc_counterfactual", "counterfactual_latent")):
        result.obsm[key] = np.concatenate([arrays[name] for _, arrays in answers])[order]
    result.uns["cfmvc"] = told["provenance"]
    return result


def _plain(cells: AnnData, name: str) -> list[Any]:
    """Return a column as values that JSON has; DataError if some are missing."""
    column = cells.obs[name]
    missing = cells.obs_names[column.isna().to_numpy()]
    if len(missing):
        listed = ", ".join(map(str, missing[:3])) + (", ..." if len(missing) > 3 else "")
        raise DataError(f"{len(missing)} cells have no value in obs[{name!r}]: {listed}; label or remove them")
    values = [value.item() if isinstance(value, np.generic) else value for value in column.tolist()]
    return [value if isinstance(value, str | int | float) else str(value) for value in values]


def _matrix(arrays: Mapping[str, NDArray], n_genes: int) -> Any:
    if "counts" in arrays:
        return arrays["counts"]
    if "data" not in arrays:
        return None
    indptr = arrays["indptr"]
    return sp.csr_matrix((arrays["data"], arrays["indices"], indptr), shape=(len(indptr) - 1, n_genes))


def _check(response: Any) -> None:
    if response.status_code == 200:
        return
    try:
        told = response.json()
        text, request_id = str(told["error"]), str(told["request_id"])
    except (KeyError, TypeError, ValueError):
        text, request_id = response.text[:200], response.headers.get("x-request-id", "unknown")
    raise ServiceError(text, response.status_code, request_id)
