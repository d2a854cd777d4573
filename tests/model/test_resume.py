"""A training that was interrupted goes on as if it had not been."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging

from cfmvc_scvi import CFMVC
from cfmvc_scvi.errors import CorruptModelError, DataError, ModelFileError, UnsafeFileError
from cfmvc_scvi.train import Checkpoint

STAGES = ["representation", "flow", "joint"]


class Killed(BaseException):
    """Stands for a signal that nothing catches."""


class Kill(Callback):
    """Ends the process, as it were, in the middle of an epoch of a stage."""

    def __init__(self, stage, epoch, step=1):
        self.at = stage, epoch, step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (pl_module.stage, trainer.current_epoch, batch_idx) == self.at:
            raise Killed


@pytest.fixture(scope="module")
def train(_counts_adata, make_model, quick):
    """Train a new model with the given random numbers; returns it, also when it was killed."""
    number = iter(range(100))

    def run(kill=None, model=None, make=None, **options):
        torch.manual_seed(3)
        model = make_model(_counts_adata.copy(), **(make or {})) if model is None else model
        torch.manual_seed(next(number) if "resume_from" in options else 105)
        hooks = [*options.pop("callbacks", []), *([kill] if kill else [])]
        defaults = {"max_epochs": 3, "batch_size": 100, "check_val_every_n_epoch": 2, "stage": STAGES}
        place = {"accelerator": "cpu", "enable_progress_bar": False}
        if "resume_from" not in options:  # which knows them
            options = defaults | {"pair_kwargs": quick["pair_kwargs"]} | options
        try:
            model.train(**place, **options, callbacks=hooks)
        except Killed:
            pass
        return model

    scvi.settings.seed = 0
    yield run
    scvi.settings.seed = None


@pytest.fixture(scope="module")
def whole(train):
    """A model of three stages whose training nothing interrupted; for reading only."""
    return train()


def assert_same(a, b):
    for name, tensor in a.module.state_dict().items():
        assert torch.equal(tensor, b.module.state_dict()[name]), name
    assert a.trained_stages_ == b.trained_stages_
    assert a.history.keys() == b.history.keys()
    for name in a.history:
        pd.testing.assert_frame_equal(a.history[name], b.history[name])
    for cells in ("train_indices", "validation_indices", "test_indices"):
        np.testing.assert_array_equal(getattr(a, cells), getattr(b, cells))
    one, other = (m.predict_counterfactual(indices=range(20), perturbation="A", seed=0).X for m in (a, b))
    np.testing.assert_array_equal(one.toarray(), other.toarray())


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("epoch", [0, pytest.param(2, marks=pytest.mark.reliability)])
def test_a_killed_training_goes_on_bit_equal(train, whole, tmp_path, stage, epoch):
    train(Kill(stage, epoch), checkpoint_dir=tmp_path / "run")
    resumed = train(resume_from=tmp_path / "run")
    assert_same(whole, resumed)
    assert resumed.is_trained
    assert not resumed.module.training


def test_the_end_of_the_last_epoch_is_kept(train, whole, tmp_path, monkeypatch):

    def die(*args):
        raise Killed

    monkeypatch.setattr(CFMVC, "_remember", die)
    train(checkpoint_dir=tmp_path / "run")  # the fit of stage 1 is over, what the model remembers of it is lost
    monkeypatch.undo()
    fitted = []
    watch = Callback()
    watch.on_train_epoch_start = lambda trainer, plan: fitted.append(plan.stage)
    assert_same(whole, train(resume_from=tmp_path / "run", callbacks=[watch]))
    assert set(fitted) == {"flow", "joint"}


@pytest.mark.reliability
def test_it_can_be_killed_again_and_again(train, whole, tmp_path):
    options = {"checkpoint_dir": tmp_path / "run"}
    for stage in STAGES:
        for epoch in range(3):
            train(Kill(stage, epoch, step=2), **options)
            options = {"resume_from": tmp_path / "run"}
    assert_same(whole, train(**options))
    assert_same(whole, train(**options))  # nothing is left to do


@pytest.mark.reliability
def test_early_stopping_learning_rates_and_averages_are_taken_up(train, tmp_path):
    def options():
        return {
            "stage": ["representation", "flow"],
            "max_epochs": {"representation": 8, "flow": 8},
            "early_stopping": True,
            "early_stopping_monitor": "validation_loss",
            "early_stopping_patience": 1,
            "early_stopping_min_delta": 1e-2,
            "plan_kwargs": {"reduce_lr_on_plateau": True, "lr_patience": 1, "lr_scheduler_metric": "elbo_validation"},
            "check_val_every_n_epoch": 1,
            "accumulate_grad_batches": 2,
            "gradient_clip_val": 1.0,
        }

    whole = train(**options())
    train(Kill("representation", 5), checkpoint_dir=tmp_path / "run", **options())
    resumed = train(resume_from=tmp_path / "run")
    assert_same(whole, resumed)
    n_epochs = {name: len(resumed.history[name]) for name in ("train_loss", "flow_train_loss")}
    assert min(n_epochs.values()) < 8


@pytest.mark.reliability
def test_an_average_of_weights_is_taken_up(train, tmp_path):
    options = {"stage": "representation", "max_epochs": 4}
    whole = train(callbacks=[EMAWeightAveraging(decay=0.5)], **options)
    train(
        Kill("representation", 2), callbacks=[EMAWeightAveraging(decay=0.5)], checkpoint_dir=tmp_path / "r", **options
    )
    resumed = train(callbacks=[EMAWeightAveraging(decay=0.5)], resume_from=tmp_path / "r")
    plain = train(**options)
    states = [model.module.state_dict() for model in (whole, resumed, plain)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    weight = "z_encoder.mean_encoder.weight"
    assert not torch.equal(states[0][weight], states[2][weight])


@pytest.mark.reliability
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_the_best_model_of_before_the_kill_is_remembered(train, tmp_path):
    def best():
        return Checkpoint(str(tmp_path / "best"), monitor="score", load_best_on_end=True)

    class Score(Callback):  # the second epoch is the best
        def on_validation_epoch_end(self, trainer, pl_module):
            pl_module.log("score", float((2.0, 1.0, 3.0, 4.0)[trainer.current_epoch]))

    options = {"stage": "representation", "max_epochs": 4, "check_val_every_n_epoch": 1}
    hooks = best()
    train(Kill("representation", 3), callbacks=[Score(), hooks], checkpoint_dir=tmp_path / "run", **options)
    resumed = train(callbacks=[Score(), best()], resume_from=tmp_path / "run")
    stored = CFMVC.load(hooks.best_model_path, adata=resumed.adata, accelerator="cpu")
    assert "epoch=1" in hooks.best_model_path
    parameters = dict(resumed.module.named_parameters())
    assert all(torch.equal(value, parameters[name]) for name, value in stored.module.named_parameters())


def test_a_checkpoint_is_a_model_as_it_was(train, tmp_path):
    killed = train(Kill("flow", 2), checkpoint_dir=tmp_path / "run")
    model = CFMVC.load(tmp_path / "run", adata=killed.adata, accelerator="cpu")
    assert model.is_trained
    assert model.trained_stages_ == ["representation", "flow"]
    assert len(model.history["flow_train_loss"]) == 2
    assert len(model.history["train_loss"]) == 3
    assert np.isfinite(model.predict_counterfactual(indices=[0, 1], perturbation="A", seed=0, output="rate").X).all()


@pytest.mark.reliability
def test_without_a_seed_the_drawn_one_is_kept(train, tmp_path):
    try:
        scvi.settings.seed = None
        model = train(Kill("flow", 1), checkpoint_dir=tmp_path / "run")
        scvi.settings.seed = 77
        one = train(resume_from=tmp_path / "run", checkpoint_dir=tmp_path / "other")
    finally:
        scvi.settings.seed = 0
    assert_same(one, train(resume_from=tmp_path / "run"))
    assert model.trained_stages_ == ["representation"]


def test_what_differs_is_named(train, tiny_adata, make_model, tmp_path):
    run = tmp_path / "run"
    train(Kill("representation", 1), checkpoint_dir=run, plan_kwargs={"lr": 1e-3})
    for options, words in [
        ({"max_epochs": 4}, "max_epochs=4, but was begun with max_epochs=3"),
        ({"plan_kwargs": {"lr": 1e-2}}, "lr': 0.01"),
        ({"gradient_clip_val": 1.0}, "with no gradient_clip_val"),
        ({"make": {"n_hidden": 8}}, "n_hidden=8, the one whose training was interrupted with n_hidden=16"),
        (
            {"model": make_model(tiny_adata[:300].copy(), n_hidden=16)},
            "360 cells x 60 genes, these data have 300 cells",
        ),
        ({"model": make_model(tiny_adata[::-1].copy())}, "the same size, but other contents"),
    ]:
        with pytest.raises(DataError, match=words):
            train(resume_from=run, **options)


@pytest.mark.reliability
def test_a_function_has_to_be_passed_again(train, tmp_path):
    def plan():
        return {"optimizer_creator": lambda parameters: torch.optim.Adam(parameters, lr=1e-3)}

    train(Kill("flow", 1), checkpoint_dir=tmp_path / "run", flow_plan_kwargs=plan())
    with pytest.raises(DataError, match="no file can hold: pass the same flow_plan_kwargs"):
        train(resume_from=tmp_path / "run")
    assert_same(train(flow_plan_kwargs=plan()), train(resume_from=tmp_path / "run", flow_plan_kwargs=plan()))


def test_places_that_cannot_be_used_are_refused_before_training(train, own, quick, tmp_path):
    own.save(tmp_path / "model")
    (tmp_path / "pickle").mkdir()
    torch.save({"x": 1}, tmp_path / "pickle" / "model.pt")
    with pytest.raises(ModelFileError, match="resume_from"):
        own.train(checkpoint_dir=tmp_path / "model", **quick)
    with pytest.raises(ModelFileError, match="a saved model, not the checkpoint"):
        own.train(resume_from=tmp_path / "model", **quick)
    with pytest.raises(ModelFileError, match="no saved model"):
        own.train(resume_from=tmp_path / "nowhere", **quick)
    with pytest.raises(UnsafeFileError, match="pickle"):
        own.train(resume_from=tmp_path / "pickle", **quick)


def test_a_damaged_checkpoint_is_refused(train, tmp_path):
    train(Kill("representation", 1), checkpoint_dir=tmp_path / "run")
    path = tmp_path / "run" / "arrays.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptModelError, match="arrays.safetensors"):
        train(resume_from=tmp_path / "run")
