"""Training with the matching term: off unless asked for, part of the loss where it is, and logged."""

import anndata as ad
import pytest
import torch

from cfmvc_scvi import CFMVC
from cfmvc_scvi.errors import DataError

QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "check_val_every_n_epoch": 1, "train_size": 0.8}
PAIRS = {"batch_size": 64, "steps_per_epoch": 3}


def flowed(adata: ad.AnnData, **options) -> tuple[CFMVC, torch.Tensor]:
    """A small model whose flow was trained with these options, and the weights of that flow."""
    from scvi import settings

    settings.seed = 0
    data = adata.copy()
    CFMVC.setup_anndata(data, labels_key="cell_type", perturbation_key="perturbation")
    model = CFMVC(data, n_intrinsic=5, n_hidden=16, flow_kwargs={"n_hidden": 16})
    model.train({"representation": 1, "flow": 2}, pair_kwargs=PAIRS, flow_plan_kwargs=options, **QUIET)
    return model, torch.cat([weight.detach().ravel() for weight in model.module.flow.parameters()])


def test_it_is_off_unless_asked_for_and_then_part_of_the_loss(tiny_adata: ad.AnnData) -> None:
    model, usual = flowed(tiny_adata)
    assert not [name for name in model.history if "mmd" in name]
    _, hardly = flowed(tiny_adata, lambda_mmd=1e-9)
    torch.testing.assert_close(hardly, usual, atol=1e-5, rtol=0)  # the pairs are the same
    model, much = flowed(tiny_adata, lambda_mmd=10.0)
    assert (much - usual).abs().max() > 1e-3
    names = ("flow_validation_loss", "flow_loss_validation", "flow_mmd_validation")
    total, flow, mmd = (model.history[name].to_numpy().ravel() for name in names)
    assert total == pytest.approx(flow + 10 * mmd, rel=1e-4)


def test_bad_weights_are_refused(tiny_adata: ad.AnnData) -> None:
    with pytest.raises(DataError, match="lambda_mmd is -2"):
        flowed(tiny_adata, lambda_mmd=-2.0)
