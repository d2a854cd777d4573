"""Which optimizer stage 1 uses."""

from __future__ import annotations

import pytest
import torch

from cfmvc_scvi.train import RepresentationPlan


@pytest.mark.parametrize(("asked", "fused"), [({}, True), ({"fused_optimizer": False}, False)])
def test_one_kernel_steps_all_weights_unless_the_user_says_otherwise(
    tiny_adata, make_model, monkeypatch, asked, fused
) -> None:
    monkeypatch.setattr(RepresentationPlan, "is_single", True)
    plan = RepresentationPlan(make_model(tiny_adata.copy()).module, **asked)
    optimizer = plan.get_optimizer_creator()([torch.nn.Parameter(torch.zeros(1))])
    assert bool(optimizer.defaults["fused"]) is fused
