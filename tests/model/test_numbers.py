"""Numbers of training: cells without counts, and minibatches that are accumulated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import Normal


@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson"])
@pytest.mark.filterwarnings("ignore:1 cell without a count")
def test_a_cell_without_a_count_trains_under_each_likelihood(tiny_adata, make_model, quick, likelihood):
    tiny_adata.X.data[tiny_adata.X.indptr[3] : tiny_adata.X.indptr[4]] = 0
    tiny_adata.X.eliminate_zeros()
    model = make_model(tiny_adata, gene_likelihood=likelihood)
    model.train(train_size=1.0, **quick)
    assert np.isfinite(model.history["train_loss"].to_numpy(dtype=float)).all()
    assert np.isfinite(model.predict_counterfactual(indices=[3], perturbation="A", seed=0, output="rate").X).all()


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=1e-2)


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("stage", ["representation", "flow", "joint"])
def test_small_minibatches_accumulate_to_a_large_one(tiny_adata, make_model, weights, monkeypatch, stage):
    """One step, with the noise of sampling taken away: what is left is the same sum in another order.

    Stage 3 couples the cells of a minibatch, so that there the pairs are fixed as well.
    """
    custom = {"optimizer": "Custom", "optimizer_creator": sgd}
    common = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "train_size": 1.0}
    after = []
    for n in (1, 4):
        torch.manual_seed(0)
        model = make_model(tiny_adata.copy(), use_batch_norm="none", dropout_rate=0.0)
        if stage != "representation":
            few = {"batch_size": 32, "steps_per_epoch": 2}
            model.train(stage=["representation", "flow"], shuffle_set_split=False, pair_kwargs=few, **common)
        before = weights(model)
        with monkeypatch.context() as patch:
            patch.setattr(Normal, "rsample", lambda self, shape=(): self.loc)
            patch.setattr(torch, "rand", lambda n, **kwargs: torch.full((n,), 0.3))
            model.train(
                stage=stage,
                batch_size=360 // n,
                accumulate_grad_batches=n,
                plan_kwargs=custom,
                flow_plan_kwargs={"optimizer_creator": sgd},
                joint_plan_kwargs=custom | {"couple": couple_each},
                pair_kwargs={"batch_size": 256 // n, "steps_per_epoch": n, "posterior_noise": False},
                shuffle_set_split=False,
                **common,
            )
        after.append(weights(model))
        assert any(not torch.equal(value, before[name]) for name, value in after[-1].items())
    for name, parameter in model.module.named_parameters():
        torch.testing.assert_close(after[0][name], after[1][name], rtol=1e-6, atol=1e-6, msg=name)
        assert parameter.requires_grad


def couple_each(batch, u, mean):
    """Each cell goes to its mirror image under the first perturbation."""
    return {"z_0": u, "z_1": -u, "design": torch.eye(2)[[0] * len(u)], "context": torch.zeros(len(u), u.shape[1])}
