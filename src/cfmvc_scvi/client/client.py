"""Questions to a served model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from cfmvc_scvi._optional import require_extra
from cfmvc_scvi.errors import CFMVCError
from cfmvc_scvi.wire import NPZ, read_npz, write_npz

__all__ = ["Client", "ServiceError"]

_TOKEN_VARIABLE = "CFMVC_SCVI_TOKEN"
_LARGEST_ANSWER = 2**32


class ServiceError(CFMVCError, RuntimeError):
    """The service did not answer; the message is its own.

    Parameters
    ----------
    status
        Of HTTP.
    text
        What the service said.
    request_id
        By which the log of the service has it.
    """

    def __init__(self, status: int, text: str, request_id: str) -> None:
        super().__init__(f"{text} (status {status}, request {request_id})")
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
        httpx = require_extra("httpx", "client")
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, transport=transport)
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
            response = self._http.get("/v1/model")
            _check(response)
            self._card = response.json()
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
        """
        answers = [self._ask("/v1/encode", block, {"pad_missing": pad_missing}) for block in self._blocks(adata)]
        n = self.model()["n_intrinsic"]
        columns = {"intrinsic": slice(0, n), "technical": slice(n, None), "both": slice(None)}[part]
        return np.concatenate([arrays["mean"] for _, arrays in answers])[:, columns]

    def counterfactual(
        self,
        adata: AnnData,
        *,
        perturbation: str | None = None,
        dose: float | None = None,
        labels: str | None = None,
        batch: str | None = None,
        output: Literal["counts", "rate", "normalized", "latent"] = "counts",
        seed: int = 0,
        pad_missing: bool = False,
        **options: Any,
    ) -> AnnData:
        """Predict what these very cells would look like under another condition.

        Parameters
        ----------
        adata
            Cells with raw counts in X and the columns of the model.
        perturbation, dose, labels, batch, output, seed
            As of `CFMVC.predict_counterfactual`.
        pad_missing
            Count genes of the model that the cells lack as zero.
        **options
            Further ones of the service: `strength`, `guidance_scale`, `heterogeneity`, and `solver`, a mapping with
            ``method`` and ``n_steps``.

        Returns
        -------
        The AnnData that `CFMVC.predict_counterfactual` returns.

        Raises
        ------
        ServiceError
            If the service does not answer, or refuses cells or question.
        """
        asked = {"perturbation": perturbation, "dose": dose, "labels": labels, "batch": batch, "output": output}
        asked |= {"seed": seed, "pad_missing": pad_missing, **options}
        header = {name: value for name, value in asked.items() if value is not None}
        answers = [self._ask("/v1/counterfactual", block, header) for block in self._blocks(adata)]
        told, genes = answers[0][0], answers[0][0]["genes"]
        matrices = [_matrix(arrays, len(genes)) for _, arrays in answers]
        obs = adata.obs[[column for column in adata.obs if not str(column).startswith("_scvi")]].copy()
        for name in told["obs"]:
            obs[name] = [value for header, _ in answers for value in header["obs"][name]]
        var = pd.DataFrame(index=genes)
        if matrices[0] is None:
            result = AnnData(obs=obs, var=var)
        else:
            stack = sp.vstack if sp.issparse(matrices[0]) else np.concatenate
            result = AnnData(stack(matrices), obs, var)
        result.obsm["X_cfmvc"] = np.concatenate([arrays["latent"] for _, arrays in answers])
        after = np.concatenate([arrays["counterfactual_latent"] for _, arrays in answers])
        result.obsm["X_cfmvc_counterfactual"] = after
        result.uns["cfmvc"] = told["provenance"]
        return result

    def _blocks(self, adata: AnnData) -> list[AnnData]:
        size = self._cells_at_a_time
        return [adata[start : start + size] for start in range(0, max(adata.n_obs, 1), size)]

    def _ask(self, route: str, cells: AnnData, header: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, NDArray]]:
        columns = self.model()["columns"]
        named = [columns[name] for name in ("perturbation", "dose", "labels", "batch", "sample")]
        wanted = [*(name for name in named if name), *columns["categories"], *columns["continuous"]]
        obs = {name: _plain(cells.obs[name]) for name in wanted if name in cells.obs}
        names, genes = ([str(name) for name in index] for index in (cells.obs_names, cells.var_names))
        counts = sp.csr_matrix(cells.X, dtype=np.float32)
        arrays = {"data": counts.data, "indices": counts.indices, "indptr": counts.indptr}
        if not counts.nnz:
            arrays = {"counts": counts.toarray()}
        body = write_npz({**header, "obs": obs, "names": names, "genes": genes}, arrays)
        response = self._http.post(route, content=body, headers={"content-type": NPZ})
        _check(response)
        return read_npz(response.content, _LARGEST_ANSWER)


def _plain(column: Any) -> list[Any]:
    return [value.item() if isinstance(value, np.generic) else value for value in column.tolist()]


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
    raise ServiceError(response.status_code, text, request_id)
