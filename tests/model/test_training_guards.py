"""Training refuses to go on with what is not a finite number, and goes on with odd but usable data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

from cfmvc_scvi.errors import CFMVCWarning, NonFiniteError, NotTrainedError


def spoil_weight(module, stage):
    parameter = module.flow.base_out.weight if stage == "flow" else module.z_encoder.mean_encoder.weight
    with torch.no_grad():
        parameter[0, 0] = torch.nan


class Spoil(Callback):
    """Puts a NaN into a weight, a gradient or an idle weight in the second epoch."""

    def __init__(self, where):
        self.where = where

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1 and self.where == "weight":
            spoil_weight(pl_module.module, pl_module.stage)

    def on_after_backward(self, trainer, pl_module):
        if trainer.current_epoch == 1 and self.where == "gradient":
            next(p for p in pl_module.parameters() if p.grad is not None).grad.view(-1)[0] = torch.inf


@pytest.mark.parametrize("stage", ["representation", "flow", "joint"])
@pytest.mark.parametrize("where", ["weight", "gradient"])
def test_what_is_not_finite_stops_the_stage_at_once(own, quick, stage, where):
    options = quick | {"max_epochs": 3}
    with pytest.raises(NonFiniteError, match=rf"(?s)'{stage}', epoch 1, step \d+.*plan_kwargs") as error:
        own.train(stage=stage, callbacks=[Spoil(where)], **options)
    assert "First bad" in str(error.value)
    assert all(parameter.requires_grad for parameter in own.module.parameters())
    assert not own.module.training
    assert own.is_trained


def test_a_weight_that_no_loss_depends_on_is_looked_at_too(own, quick):
    with torch.no_grad():
        own.module.l_encoder.mean_encoder.weight[0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"l_encoder\.mean_encoder\.weight"):
        own.train(stage="representation", **quick)


def test_a_bad_validation_loss_is_no_early_stop(own, quick):
    counts = own.adata.X
    counts.data[counts.indptr[own.validation_indices[0]]] = np.nan
    with pytest.raises(NonFiniteError, match="counts of a minibatch are NaN"):
        own.train(stage="representation", early_stopping=True, **quick)


def test_a_failed_first_training_leaves_the_model_untrained(tiny_adata, make_model, quick):
    model = make_model(tiny_adata)
    with pytest.raises(NonFiniteError):
        model.train(callbacks=[Spoil("gradient")], **quick)
    assert model.trained_stages_ == []
    assert not model.is_trained
    with pytest.raises(NotTrainedError):
        model.get_latent_representation()


@pytest.mark.parametrize("source", ["control", "noise"])
def test_contexts_without_control_train(tiny_adata, make_model, quick, source):
    no_control = ~((tiny_adata.obs["cell_type"] == "T") & (tiny_adata.obs["perturbation"] == "control"))
    adata = tiny_adata[no_control].copy()
    with pytest.warns(CFMVCWarning, match="without a control cell: T"):
        model = make_model(adata, source=source)
    model.train(**quick)
    assert np.isfinite(model.history["flow_loss_train"].to_numpy(dtype=float)).all()


def test_one_perturbed_cell_and_an_empty_cell_train(tiny_adata, make_model, quick):
    keep = (tiny_adata.obs["perturbation"] != "B").to_numpy()
    keep[np.flatnonzero(~keep)[0]] = True
    adata = tiny_adata[keep].copy()
    adata.X.data[adata.X.indptr[3] : adata.X.indptr[4]] = 0
    with pytest.warns(CFMVCWarning) as caught:
        model = make_model(adata)
    messages = " ".join(str(warning.message) for warning in caught)
    assert "B (1 cell)" in messages
    assert "1 cell without a count" in messages
    model.train(**quick)
    predicted = model.predict_counterfactual(indices=[3, 4], perturbation="B", seed=0, output="rate")
    assert np.isfinite(predicted.X).all()
