from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from cfmvc_scvi import CFMVC
from cfmvc_scvi.errors import UnknownConditionError


def _trained(adata, epochs: int = 1) -> CFMVC:
    CFMVC.setup_anndata(adata, labels_key="cell_type", perturbation_key="perturbation")
    model = CFMVC(adata)
    model.train(epochs, accelerator="cpu", enable_progress_bar=False, stage="representation")
    return model


def _without_decoder(model: CFMVC) -> CFMVC:
    model._reference = replace(model._reference, decoded=None, _goals={})
    return model


def test_an_effect_left_out_is_that_of_a_model_that_never_saw_it_but_for_the_decoder(tiny_adata):
    left_out = _without_decoder(_trained(tiny_adata.copy())).get_left_out_effect("A")
    assert set(left_out["context"]) == {"B", "T", "mono"}
    held = (tiny_adata.obs["cell_type"] == "T") & (tiny_adata.obs["perturbation"] == "A")
    without = _without_decoder(_trained(tiny_adata[~held].copy())).get_effect("A")
    expected = without[without["context"] == "T"].set_index("gene")["delta"]
    got = left_out[left_out["context"] == "T"].set_index("gene")["delta"]
    assert np.allclose(got, expected.loc[got.index], atol=1e-8)


def test_the_decoder_has_its_share_in_an_effect_left_out(tiny_adata):
    counts = sp.csr_matrix(tiny_adata.X).toarray()
    counts[np.ix_((tiny_adata.obs["perturbation"] == "A").to_numpy(), np.arange(10))] += 20  # in all cell types
    tiny_adata.X = sp.csr_matrix(counts)
    model = _trained(tiny_adata, 40)
    usual, decoded = model.get_left_out_effect("A"), model._reference.decoded
    assert np.abs(decoded.change).max() > 0
    alone = _without_decoder(model).get_left_out_effect("A")
    assert np.abs(usual["delta"] - alone["delta"]).max() > 0
    sizes = (np.sqrt((table["delta"] ** 2).groupby(table["context"]).sum()) for table in (usual, alone))
    np.testing.assert_allclose(*sizes, rtol=0.05)


def test_what_was_measured_is_the_difference_of_means(tiny_adata):
    from cfmvc_scvi.metrics import log_normalize

    left_out = _trained(tiny_adata.copy()).get_left_out_effect("A")
    chosen = tiny_adata[tiny_adata.obs["cell_type"] == "mono"]
    parts = [log_normalize(chosen[chosen.obs["perturbation"] == name].X).mean(axis=0) for name in ("A", "control")]
    got = left_out[left_out["context"] == "mono"].set_index("gene")["measured"].loc[tiny_adata.var_names]
    assert np.corrcoef(got, parts[0] - parts[1])[0, 1] > 0.95


def test_nothing_to_leave_out(tiny_adata):
    in_t_alone = (tiny_adata.obs["perturbation"] != "A") | (tiny_adata.obs["cell_type"] == "T")
    model = _trained(tiny_adata[in_t_alone].copy())
    assert len(model.get_left_out_effect("A")) == 0
    with pytest.raises(UnknownConditionError, match="no context saw"):
        model.get_left_out_effect("A+B")
