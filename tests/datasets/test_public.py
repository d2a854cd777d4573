import hashlib
import sys
from pathlib import Path
from types import SimpleNamespace

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from cfmvc_scvi import datasets
from cfmvc_scvi.datasets import public
from cfmvc_scvi.errors import (
    CFMVCWarning,
    DataError,
    DownloadError,
    MissingExtraError,
    UnknownConditionError,
    UnsafeFileError,
)

COLUMNS = {
    "kang": {"label": ["ctrl", "stim", "stim"], "cell_type": ["B", "NK", "B"], "replicate": ["p1", "p2", "p1"]},
    "papalexi": {"perturbation": ["control", "ATF2g1", "ATF2g10"], "hto": ["rep1", "rep2", "rep1"]},
    "norman": {"perturbation": ["control", "CEBPA_CEBPB", "CEBPA"], "gemgroup": [1, 2, 1]},
    "gbm": {
        "perturbation": ["control", "panobinostat", "etoposide"],
        "celltype": ["unknown"] * 3,
        "sample": ["PW30", "PW32", "PW30"],
    },
}
EXPECTED = {
    "kang": (["control", "IFNb", "IFNb"], {"B", "NK"}, ["p1", "p2", "p1"]),
    "papalexi": (["control", "ATF2", "ATF2"], {"THP-1"}, ["rep1", "rep2", "rep1"]),
    "norman": (["control", "CEBPA+CEBPB", "CEBPA"], {"K562"}, ["1", "2", "1"]),
    "gbm": (["control", "panobinostat", "etoposide"], {"unknown"}, ["PW30", "PW32", "PW30"]),
}
COUNTS = np.array([[0.0, 3.0], [2.0, 1.0], [5.0, 0.0]])
VERIFIED = ["kang", "papalexi", "norman"]


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Put a tiny file of the source's form where the loader looks; a download is a failed test."""

    def put(name, obs=None, counts=None):
        remote = getattr(public, f"_{name.upper()}")
        frame = pd.DataFrame(COLUMNS[name] if obs is None else obs, index=["c1", "c2", "c3"])
        matrix = COUNTS if counts is None else counts
        ad.AnnData(sparse.csc_matrix(matrix), obs=frame, var=pd.DataFrame(index=["g1", "g2"])).write_h5ad(
            tmp_path / remote.file_name
        )
        calls = []

        def retrieve(url, known_hash, fname, path):
            calls.append((url, known_hash))
            return str(Path(path) / fname)

        monkeypatch.setitem(sys.modules, "pooch", SimpleNamespace(retrieve=retrieve, os_cache=lambda name: tmp_path))
        return calls

    return put


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.filterwarnings("ignore:the digest of:cfmvc_scvi.errors.CFMVCWarning")
def test_columns_and_counts_have_one_form(name, cached):
    calls = cached(name)
    adata = getattr(datasets, name)()
    perturbations, types, batches = EXPECTED[name]
    assert list(adata.obs["perturbation"]) == perturbations
    assert set(adata.obs["cell_type"].cat.categories) == types
    assert list(adata.obs["batch"]) == list(adata.obs["sample"]) == batches
    assert sparse.isspmatrix_csr(adata.X) and adata.X.dtype == np.float32
    np.testing.assert_array_equal(adata.X.toarray(), COUNTS)
    assert len(calls) == 1 and calls[0][0].startswith("https://")


def test_guides_are_kept(cached):
    cached("papalexi")
    assert list(datasets.papalexi().obs["guide"]) == ["control", "ATF2g1", "ATF2g10"]


@pytest.mark.parametrize("name", VERIFIED)
def test_known_digests_are_asked_for(name, cached):
    calls = cached(name)
    getattr(datasets, name)()
    algorithm, digest = calls[0][1].split(":")
    assert len(digest) == hashlib.new(algorithm, usedforsecurity=False).digest_size * 2


def test_unknown_digest_is_announced(cached):
    cached("gbm")
    with pytest.warns(CFMVCWarning, match="not verified") as caught:
        datasets.gbm()
    assert caught[0].filename == __file__


def test_offline_error_says_where_to_put_the_file(tmp_path, monkeypatch):
    def retrieve(url, known_hash, fname, path):
        raise ConnectionError("no route to host")

    monkeypatch.setitem(sys.modules, "pooch", SimpleNamespace(retrieve=retrieve))
    with pytest.raises(DownloadError) as error:
        datasets.kang(cache_dir=tmp_path / "cache")
    assert isinstance(error.value, ConnectionError)
    message = str(error.value)
    assert "https://exampledata.scverse.org/pertpy/kang_2018.h5ad" in message
    assert str(tmp_path / "cache" / "kang_2018.h5ad") in message
    assert "sha256:e6a5adac" in message and "no route to host" in message


def test_changed_file_is_refused(tmp_path, monkeypatch):
    def retrieve(url, known_hash, fname, path):
        raise ValueError("hash of downloaded file does not match")

    monkeypatch.setitem(sys.modules, "pooch", SimpleNamespace(retrieve=retrieve))
    with pytest.raises(DataError, match="is not the known file"):
        datasets.norman(cache_dir=tmp_path)


def test_missing_pooch(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(MissingExtraError, match=r"cfmvc-scvi\[datasets\]"):
        datasets.kang(cache_dir=tmp_path)


def test_file_of_another_form(cached):
    cached("kang", obs={"condition": ["ctrl", "stim", "stim"]})
    with pytest.raises(DataError, match=r"no obs column 'label' to make 'perturbation' from, only \['condition'\]"):
        datasets.kang()


def test_normalised_values_are_refused(cached):
    cached("kang", counts=COUNTS / 3)
    with pytest.raises(DataError, match="log-normalised"):
        datasets.kang()


def test_file_without_control(cached):
    cached("kang", obs=COLUMNS["kang"] | {"label": ["stim"] * 3})
    with pytest.raises(UnknownConditionError, match="'control'"):
        datasets.kang()


def test_missing_labels_stay_missing(cached):
    cached("kang", obs=COLUMNS["kang"] | {"label": ["ctrl", None, "stim"]})
    assert list(datasets.kang().obs["perturbation"].isna()) == [False, True, False]


def test_file_that_reads_other_files_is_refused(cached, tmp_path):
    cached("kang")
    with h5py.File(tmp_path / "kang_2018.h5ad", "a") as file:
        file["uns/secret"] = h5py.ExternalLink("elsewhere.h5", "/data")
    with pytest.raises(UnsafeFileError, match="secret"):
        datasets.kang()
