"""What is logged once an epoch is what lightning logs step by step."""

from __future__ import annotations

import lightning.pytorch as pl
import numpy as np
import pytest
import scvi
from lightning.pytorch import Callback

from cfmvc_scvi.train import FlowPlan
from cfmvc_scvi.train.epoch_log import EpochLog


class Seen(Callback):
    """Records what other callbacks can see at the end of an epoch."""

    def __init__(self):
        self.keys = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.keys.append(sorted(trainer.callback_metrics))


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("more", [{}, {"accumulate_grad_batches": 2}, {"max_steps": 7}])
def test_histories_are_those_of_lightning(tiny_adata, make_model, quick, monkeypatch, more):
    histories, keys = [], []
    for own in (True, False):
        if not own:
            monkeypatch.setattr(EpochLog, "log", pl.LightningModule.log)
        scvi.settings.seed = 0
        model, seen = make_model(tiny_adata.copy()), Seen()
        model.train(**quick, check_val_every_n_epoch=1, callbacks=[seen], **more)
        histories.append(model.history)
        keys.append(seen.keys)
    assert histories[0].keys() == histories[1].keys() and {"elbo_train", "flow_loss_train"} <= histories[0].keys()
    for name, frame in histories[0].items():
        np.testing.assert_allclose(frame.astype(float), histories[1][name].astype(float), rtol=1e-5, err_msg=name)
    if not more.get("max_steps"):  # of an epoch that ends early, callbacks of its end come first
        assert keys[0] == keys[1]


def test_without_a_trainer_nothing_is_logged(trained):
    plan = FlowPlan(trained.module)
    with pytest.warns(UserWarning, match="not registered"):
        plan.log("train_loss", 1.0, on_step=False, on_epoch=True)
    assert not plan._collected
