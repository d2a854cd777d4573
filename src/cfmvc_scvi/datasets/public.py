"""Loaders of public perturbation experiments, downloaded once and brought to one set of columns."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from cfmvc_scvi._keys import COMBINATION_SEPARATOR
from cfmvc_scvi._optional import require_extra
from cfmvc_scvi.data import check_counts, check_key
from cfmvc_scvi.data.h5ad_guard import assert_self_contained
from cfmvc_scvi.datasets._truth import CONTROL
from cfmvc_scvi.errors import CFMVCWarning, DataError, DownloadError

__all__ = ["gbm", "kang", "norman", "papalexi"]

_SCPERTURB = "https://zenodo.org/records/13350497/files"  # Peidli et al., Nat Methods 21, 531-540 (2024), CC BY 4.0


@dataclass(frozen=True)
class _Remote:
    """A file to download: `known_hash` is ``algorithm:digest``, or None where the digest is not known."""

    file_name: str
    url: str
    known_hash: str | None


_KANG = _Remote(
    "kang_2018.h5ad",
    "https://exampledata.scverse.org/pertpy/kang_2018.h5ad",
    "sha256:e6a5adac64dcdeb36eaba27db49b63e0c64bb0ed4a64c6705971506b41c39830",
)
_PAPALEXI = _Remote(
    "PapalexiSatija2021_eccite_RNA.h5ad",
    f"{_SCPERTURB}/PapalexiSatija2021_eccite_RNA.h5ad",
    "md5:d9e8bfe20b0e7b0919be042e8fcf6d03",
)
_NORMAN = _Remote(
    "NormanWeissman2019_filtered.h5ad",
    f"{_SCPERTURB}/NormanWeissman2019_filtered.h5ad",
    "md5:c870e6967d91c017d9da827bab183cd6",
)
_GBM = _Remote("ZhaoSims2021.h5ad", f"{_SCPERTURB}/ZhaoSims2021.h5ad", None)

_Column = str | Callable[[pd.DataFrame], pd.Series]


def kang(cache_dir: str | os.PathLike[str] | None = None) -> AnnData:
    """Blood cells of eight lupus patients with and without interferon beta: 24,673 cells, 15,706 genes, 38 MB.

    Parameters
    ----------
    cache_dir
        Folder for the file. None: the user's cache.

    Returns
    -------
    AnnData with raw counts (CSR) and `obs` ``perturbation`` (``"control"``, ``"IFNb"``), ``cell_type``, ``batch`` and
    ``sample`` (both the donor), beside the columns of the source.

    Raises
    ------
    MissingExtraError
        If pooch is not installed.
    DownloadError
        If the file is neither in the cache nor can be fetched.
    DataError
        If the file is not the expected one.

    References
    ----------
    Kang et al., Nat Biotechnol 36, 89-94 (2018), GSE96583, as processed for pertpy.
    """
    columns: dict[str, _Column] = {
        "perturbation": lambda obs: obs["label"].map({"ctrl": CONTROL, "stim": "IFNb"}),
        "cell_type": "cell_type",
        "batch": "replicate",
        "sample": "replicate",
    }
    return _load(_KANG, columns, cache_dir)


def papalexi(cache_dir: str | os.PathLike[str] | None = None) -> AnnData:
    """ECCITE-seq of stimulated THP-1 cells with 25 CRISPR knock-outs: about 21,000 cells, 147 MB.

    The control is confounded with the replicate (`batch`): compare within replicates.

    Parameters
    ----------
    cache_dir
        Folder for the file. None: the user's cache.

    Returns
    -------
    AnnData with raw counts (CSR) and `obs` ``perturbation`` (the target gene, or ``"control"`` for non-targeting
    guides), ``guide``, ``cell_type`` (one), ``batch`` and ``sample`` (both the hashtag of the replicate), beside the
    columns of the source.

    Raises
    ------
    MissingExtraError
        If pooch is not installed.
    DownloadError
        If the file is neither in the cache nor can be fetched.
    DataError
        If the file is not the expected one.

    References
    ----------
    Papalexi et al., Nat Genet 53, 322-331 (2021), GSE153056, as harmonised by scPerturb.
    """
    columns: dict[str, _Column] = {
        "guide": "perturbation",
        "perturbation": lambda obs: obs["perturbation"].str.replace(r"g\d+$", "", regex=True),
        "cell_type": lambda obs: pd.Series("THP-1", index=obs.index),
        "batch": "hto",
        "sample": "hto",
    }
    return _load(_PAPALEXI, columns, cache_dir)


def norman(cache_dir: str | os.PathLike[str] | None = None) -> AnnData:
    """CRISPR activation of genes alone and in pairs in K562 cells: 111,445 cells, 699 MB.

    Parameters
    ----------
    cache_dir
        Folder for the file. None: the user's cache.

    Returns
    -------
    AnnData with raw counts (CSR) and `obs` ``perturbation`` (``"control"``, ``"CEBPA"``, ``"CEBPA+CEBPB"``),
    ``cell_type`` (one), ``batch`` and ``sample`` (both the gem group), beside the columns of the source.

    Raises
    ------
    MissingExtraError
        If pooch is not installed.
    DownloadError
        If the file is neither in the cache nor can be fetched.
    DataError
        If the file is not the expected one.

    References
    ----------
    Norman et al., Science 365, 786-793 (2019), GSE133344, as harmonised by scPerturb.
    """
    columns: dict[str, _Column] = {
        "perturbation": lambda obs: obs["perturbation"].str.replace("_", COMBINATION_SEPARATOR),
        "cell_type": lambda obs: pd.Series("K562", index=obs.index),
        "batch": "gemgroup",
        "sample": "gemgroup",
    }
    return _load(_NORMAN, columns, cache_dir)


def gbm(cache_dir: str | os.PathLike[str] | None = None) -> AnnData:
    """Slices of glioblastomas with and without drugs (panobinostat and others), several patients, 587 MB.

    The source has no cell types: `cell_type` is ``"unknown"`` until you annotate it. The digest of the file is not
    known, so its content is not verified.

    Parameters
    ----------
    cache_dir
        Folder for the file. None: the user's cache.

    Returns
    -------
    AnnData with raw counts (CSR) and `obs` ``perturbation`` (``"control"`` or the drug), ``cell_type``, ``batch`` and
    ``sample`` (both the patient), beside the columns of the source.

    Raises
    ------
    MissingExtraError
        If pooch is not installed.
    DownloadError
        If the file is neither in the cache nor can be fetched.
    DataError
        If the file is not the expected one.

    Warns
    -----
    CFMVCWarning
        That the file is not verified.

    References
    ----------
    Zhao et al., Genome Med 13, 82 (2021), GSE148842, as harmonised by scPerturb.
    """
    columns: dict[str, _Column] = {
        "perturbation": "perturbation",
        "cell_type": "celltype",
        "batch": "sample",
        "sample": "sample",
    }
    return _load(_GBM, columns, cache_dir)


def _load(remote: _Remote, columns: Mapping[str, _Column], cache_dir: str | os.PathLike[str] | None) -> AnnData:
    """Fetch and read a file and write the columns that all data sets have; a text names the source's column."""
    path = _fetch(remote, cache_dir)
    assert_self_contained(path)
    adata = ad.read_h5ad(path)
    check_counts(adata)
    adata.X = sparse.csr_matrix(adata.X, dtype=np.float32)
    source = adata.obs.copy()
    for name, column in columns.items():
        try:
            values = source[column] if isinstance(column, str) else column(source)
        except KeyError as error:
            raise DataError(
                f"'{path}' has no obs column {error} to make '{name}' from, only {list(source.columns)}; "
                "it is not the file that this loader knows"
            ) from error
        adata.obs[name] = pd.Categorical(values.map(str, na_action="ignore"))
    check_key(CONTROL, adata.obs["perturbation"].cat.categories, f"obs['perturbation'] of '{path}'")
    return adata


def _fetch(remote: _Remote, cache_dir: str | os.PathLike[str] | None) -> Path:
    """Path of the file in the cache, downloaded if it is not there or differs from the known digest."""
    pooch = require_extra("pooch", extra="datasets")
    folder = Path(pooch.os_cache("cfmvc-scvi") if cache_dir is None else cache_dir)
    if remote.known_hash is None:
        warnings.warn(
            f"the digest of '{remote.file_name}' is not known: its content is not verified", CFMVCWarning, stacklevel=4
        )
    try:
        return Path(pooch.retrieve(remote.url, known_hash=remote.known_hash, fname=remote.file_name, path=folder))
    except OSError as error:  # what requests raises without a connection, and what the file system raises
        digest = "" if remote.known_hash is None else f" (digest {remote.known_hash})"
        raise DownloadError(
            f"'{remote.url}' could not be fetched into '{folder}': {error}. Check the connection, or download the file "
            f"elsewhere and place it at '{folder / remote.file_name}'{digest}"
        ) from error
    except ValueError as error:  # pooch: the digest differs
        raise DataError(
            f"what '{remote.url}' sent is not the known file (digest {remote.known_hash}): {error}. "
            "Try again later; if it persists, the file has changed at its source"
        ) from error
