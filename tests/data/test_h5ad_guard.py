"""Files that make a reader open other files are refused; honest ones pass."""

from __future__ import annotations

import anndata
import h5py
import numpy as np
import pytest
from scipy import sparse

from cfmvc_scvi.data.h5ad_guard import assert_self_contained
from cfmvc_scvi.errors import DataError, UnsafeFileError


@pytest.fixture
def h5ad(tmp_path):
    adata = anndata.AnnData(sparse.random(6, 4, 0.5, "csr", dtype=np.float32, rng=0))
    adata.layers["counts"] = adata.X.copy()
    adata.obs["label"] = np.array(list("aabbcc"))
    adata.obs["label"] = adata.obs["label"].astype("category")
    adata.uns["nested"] = {"deep": {"deeper": np.arange(3)}}
    path = tmp_path / "adata.h5ad"
    anndata.io.write_h5ad(path, adata)
    return path


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(b"0123456789abcdef")
    return path


def test_an_honest_file_passes(h5ad):
    assert_self_contained(h5ad)
    assert_self_contained(str(h5ad))


def test_links_within_the_file_pass(h5ad):
    with h5py.File(h5ad, "a") as file:
        file["soft"] = h5py.SoftLink("/layers/counts")
        file["dangling"] = h5py.SoftLink("/nowhere")
        file["hard"] = file["layers"]
        file["uns/loop"] = file["/"]
    assert_self_contained(h5ad)


def add_external_link(file, secret):
    file["uns/nested/bad"] = h5py.ExternalLink(str(secret), "/X")


def add_external_storage(file, secret):
    file.create_dataset("uns/nested/bad", (16,), np.uint8, external=[(str(secret), 0, 16)])


def add_virtual_dataset(file, secret):
    layout = h5py.VirtualLayout((4,), np.uint8)
    layout[:] = h5py.VirtualSource(str(secret), "data", (4,))
    file.create_virtual_dataset("uns/nested/bad", layout)


def add_virtual_dataset_of_itself(file, secret):
    layout = h5py.VirtualLayout((3,), np.int64)
    layout[:] = h5py.VirtualSource(".", "uns/nested/deep/deeper", (3,))
    file.create_virtual_dataset("uns/nested/bad", layout)


@pytest.mark.parametrize(
    ("add", "reason"),
    [
        (add_external_link, "external link to '.*secret'"),
        (add_external_storage, "external file '.*secret'"),
        (add_virtual_dataset, "virtual"),
        (add_virtual_dataset_of_itself, "virtual"),
    ],
)
def test_references_to_other_files_are_refused(h5ad, secret, add, reason):
    with h5py.File(h5ad, "a") as file:
        add(file, secret)
    with pytest.raises(UnsafeFileError, match=f"'/uns/nested/bad' is .*{reason}"):
        assert_self_contained(h5ad)


def test_a_soft_link_through_an_external_link_is_refused(h5ad, secret):
    with h5py.File(h5ad, "a") as file:
        file["outside"] = h5py.ExternalLink(str(secret), "/")
        file["alias"] = h5py.SoftLink("/outside/X")
    with pytest.raises(UnsafeFileError, match="'/outside'"):
        assert_self_contained(h5ad)


def test_what_is_refused_would_have_been_read(h5ad, secret):
    with h5py.File(h5ad, "a") as file:
        add_external_storage(file, secret)
    with h5py.File(h5ad) as file:
        assert bytes(file["uns/nested/bad"][:]) == secret.read_bytes()


@pytest.mark.parametrize("content", [b"", b"not an hdf5 file", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_what_is_no_hdf5_file(tmp_path, content):
    path = tmp_path / "x.h5ad"
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as HDF5"):
        assert_self_contained(path)
