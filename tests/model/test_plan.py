"""How far the flow may make predicted cells differ."""

from __future__ import annotations

import numpy as np
import pytest
import scanpy as sc
import torch

from cfmvc_scvi import CFMVC
from cfmvc_scvi.model.plan import Observation


@pytest.fixture
def overfitted(own: CFMVC) -> CFMVC:
    """A model whose decoder tells cells apart far more than real cells differ."""
    with torch.no_grad():
        own.module.decoder.px_scale_decoder[0].weight *= 30
    return own


def _spread(adata) -> float:
    values = adata.copy()
    sc.pp.normalize_total(values, target_sum=1e4)
    sc.pp.log1p(values)
    return float(np.var(values.X.toarray(), axis=0).mean())


def test_predicted_cells_differ_no_more_than_real_ones(overfitted):
    real = overfitted.adata[overfitted.adata.obs["perturbation"] == "A"]
    control = np.flatnonzero(overfitted.adata.obs["perturbation"] == "control")
    moved = overfitted.predict_counterfactual(perturbation="A", indices=control)
    new = overfitted.sample_cells("A", n_cells=200, seed=0)
    assert _spread(moved) < 1.15 * _spread(real)
    assert _spread(new) < 1.15 * _spread(real)


def test_cells_that_do_not_respond_keep_their_counts_under_any_decoder(overfitted):
    control = np.flatnonzero(overfitted.adata.obs["perturbation"] == "control")
    still = overfitted.predict_counterfactual(perturbation="A", indices=control, strength=0.0)
    assert abs(still.X - overfitted.adata.X[control]).max() == 0


def test_rates_of_a_condition_unseen_in_its_context_are_damped_as_they_were_matched(
    _counts_adata, make_model, quick, monkeypatch
):
    cells = _counts_adata.copy()
    unseen = ((cells.obs["perturbation"] == "A") & (cells.obs["cell_type"] == "B")).to_numpy()
    model = make_model(cells[~unseen].copy())
    model.train(**quick)
    with torch.no_grad():
        model.module.decoder.px_scale_decoder[0].weight *= 30
    plans = {}
    plan = Observation.plan
    monkeypatch.setattr(
        Observation,
        "plan",
        lambda self, own, wanted, **options: plans.setdefault((own, wanted), plan(self, own, wanted, **options)),
    )
    model.predict_counterfactual(cells[unseen].copy(), perturbation="B")
    (asked,) = [pair for pair in plans if pair[0] != pair[0].control()]
    before, after = (plans[asked[0].control(), group] for group in asked)
    np.testing.assert_array_equal(plans[asked].differences, (before.differences[1], after.differences[1]))
    assert (before.differences[1] != after.differences[1]).any()
