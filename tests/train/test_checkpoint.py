"""Checkpoints in the package's own files, during a real training of a small model of scvi-tools."""

from __future__ import annotations

import logging
import os

import lightning.pytorch as pl
import numpy as np
import pytest
import scvi
import torch
from anndata import AnnData

from cfmvc_scvi.errors import CFMVCWarning
from cfmvc_scvi.model.persistence import SafePersistenceMixin
from cfmvc_scvi.train.checkpoint import Checkpoint

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The number of training batches:UserWarning"),
]


class Model(SafePersistenceMixin, scvi.model.SCVI):
    """SCVI with safe files."""


@pytest.fixture
def model():
    counts = np.random.default_rng(0).poisson(2.0, (60, 8)).astype(np.float32)
    adata = AnnData(counts)
    Model.setup_anndata(adata)
    return Model(adata, n_hidden=4, n_latent=2)


class Probe(pl.Callback):
    """Sets the monitored metric, records the weights of each epoch, and keeps a submodule in eval mode."""

    def __init__(self, model, scores, frozen=None):
        self.model, self.scores, self.frozen = model, scores, frozen
        self.states = []

    def on_train_epoch_start(self, trainer, pl_module):
        if self.frozen is not None:
            self.frozen.eval()

    def on_validation_epoch_end(self, trainer, pl_module):
        pl_module.log("score", self.scores[trainer.current_epoch])
        self.states.append({name: tensor.clone() for name, tensor in self.model.module.state_dict().items()})


def run(model, checkpoint, probe, **kwargs):
    model.train(
        len(probe.scores),
        accelerator="cpu",
        batch_size=30,
        check_val_every_n_epoch=1,
        enable_progress_bar=False,
        callbacks=[checkpoint, probe],
        **kwargs,
    )


def assert_weights(model, state):
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.module.state_dict().items())


def test_the_best_model_is_kept_and_loaded(model, tmp_path):
    probe = Probe(model, [3.0, 1.0, 2.0], frozen=model.module.l_encoder)
    checkpoint = Checkpoint(str(tmp_path / "run.ckpt"), monitor="score", load_best_on_end=True)
    run(model, checkpoint, probe)

    assert os.listdir(tmp_path / "run.ckpt") == [os.path.basename(checkpoint.best_model_path)]
    assert "epoch=1" in checkpoint.best_model_path
    assert not torch.equal(probe.states[1]["px_r"], probe.states[2]["px_r"])
    assert_weights(model, probe.states[1])
    assert model.is_trained
    assert len(model.history["train_loss"]) == 3

    loaded = Model.load(checkpoint.best_model_path, adata=model.adata, accelerator="cpu")
    assert_weights(loaded, probe.states[1])
    assert loaded.is_trained
    assert sorted(os.listdir(checkpoint.best_model_path)) == [
        "arrays.safetensors",
        "manifest.json",
        "model.json",
        "weights.safetensors",
    ]


@pytest.mark.parametrize("trained", [False, True])
def test_modes_and_training_state_are_left_alone(model, tmp_path, trained):
    seen = []

    class Watched(Checkpoint):
        def _save_checkpoint(self, trainer, filepath):
            before = state()
            super()._save_checkpoint(trainer, filepath)
            seen.append((before, state()))

    def state():
        return [module.training for module in model.module.modules()], model.is_trained_

    model.is_trained_ = trained
    model.history_ = {}
    run(model, Watched(str(tmp_path), monitor="score"), Probe(model, [2.0], frozen=model.module.l_encoder))
    ((before, after),) = seen
    assert before == after
    assert set(before[0]) == {True, False}
    assert before[1] is trained


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start of training")
def test_a_second_training_does_not_touch_the_checkpoints_of_the_first(model, tmp_path):
    paths = []
    for _ in range(2):
        checkpoint = Checkpoint(str(tmp_path), filename="best", monitor="score")
        run(model, checkpoint, Probe(model, [1.0]))
        paths.append(os.path.basename(checkpoint.best_model_path))
    assert paths == ["best", "best-v1"]


def test_all_checkpoints_can_be_kept(model, tmp_path):
    checkpoint = Checkpoint(str(tmp_path), filename="{epoch}", monitor="score", save_top_k=-1)
    run(model, checkpoint, Probe(model, [1.0, 2.0]))
    assert sorted(os.listdir(tmp_path)) == ["epoch=0", "epoch=1"]
    assert checkpoint.best_model_path.endswith("epoch=0")


def test_without_a_checkpoint_the_last_weights_stay(model, tmp_path):
    probe = Probe(model, [1.0])
    checkpoint = Checkpoint(str(tmp_path), monitor="score", save_top_k=0, load_best_on_end=True)
    with pytest.warns(CFMVCWarning, match="no checkpoint was saved"):
        run(model, checkpoint, probe)
    assert_weights(model, probe.states[0])


def test_after_a_failure_the_best_weights_come_back(model, tmp_path, caplog):
    class Fail(Probe):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                raise FloatingPointError("gradient")

    probe = Fail(model, [1.0, 2.0, 3.0])
    checkpoint = Checkpoint(str(tmp_path), monitor="score", check_nan_gradients=True)
    with caplog.at_level(logging.WARNING), pytest.raises(FloatingPointError, match="gradient"):
        run(model, checkpoint, probe)
    assert "FloatingPointError" in caplog.text
    assert_weights(model, probe.states[0])


def test_another_callback_s_checkpoint_is_not_ours(model, tmp_path):
    class Foreign(Probe):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.save_checkpoint(tmp_path / "foreign.ckpt")

    run(model, Checkpoint(str(tmp_path / "ours"), monitor="score", save_top_k=0), Foreign(model, [1.0]))
    assert os.listdir(tmp_path) == ["foreign.ckpt"]
