import numpy as np
import pytest

from cfmvc_scvi import tl
from cfmvc_scvi.errors import DataError


def test_predicted_cells_lie_on_a_map_of_the_real_ones(tiny_adata):
    of = {name: tiny_adata[tiny_adata.obs["perturbation"] == name].copy() for name in ("control", "A")}
    shuffled = of["A"][:, ::-1].copy()
    joint = tl.joint_umap({"control": of["control"], "true": of["A"], "predicted": shuffled}, n_cells=40)
    assert joint.obs["role"].value_counts().to_dict() == {"control": 40, "true": 40, "predicted": 40}
    assert joint.obsm["X_umap"].shape == (120, 2)
    assert np.isfinite(joint.obsm["X_umap"]).all()
    assert joint.obs_names.is_unique


def test_the_axes_do_not_depend_on_what_is_predicted(tiny_adata):
    real = {"control": tiny_adata[:100].copy()}
    first, second = (tl.joint_umap({**real, "predicted": tiny_adata[rows].copy()}) for rows in ([0, 1], [200, 300]))
    assert np.allclose(first.obsm["X_pca"][:100], second.obsm["X_pca"][:100], atol=1e-5)


def test_a_map_of_too_few(tiny_adata):
    with pytest.raises(DataError, match="3 cells are not predicted"):
        tl.joint_umap({"control": tiny_adata[:3].copy(), "predicted": tiny_adata[3:9].copy()})
