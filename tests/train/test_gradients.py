"""What the monitor says of gradients is what the gradients are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger

from cfmvc_scvi import CFMVC, pl
from cfmvc_scvi.callbacks import GradientMonitor
from cfmvc_scvi.errors import DataError, NonFiniteError


@pytest.fixture
def make(tiny_adata):
    def make() -> CFMVC:
        CFMVC.setup_anndata(tiny_adata, batch_key="batch", labels_key="cell_type", perturbation_key="perturbation")
        return CFMVC(tiny_adata, n_intrinsic=4, n_technical=2, n_hidden=16, flow_kwargs={"n_hidden": 16})

    return make


def train(model, *callbacks, **options):
    defaults = {"max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False, "batch_size": 100}
    pairs = {"batch_size": 64, "steps_per_epoch": 5}
    model.train(**(defaults | options), pair_kwargs=pairs, callbacks=list(callbacks))
    return model


class Compare(Callback):
    """Measures one layer by itself, at each step."""

    def __init__(self, layer):
        self.layer, self.norms, self.ratios, self.total = layer, [], [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        parameters = list(pl_module.module.get_submodule(self.layer).parameters())
        self.norms.append(torch.cat([p.grad.flatten() for p in parameters]).norm().item())
        grads = [p.grad.flatten() for p in pl_module.module.parameters() if p.grad is not None]
        self.total.append(torch.cat(grads).norm().item())
        self.old = torch.cat([p.detach().flatten().clone() for p in parameters])

    def on_train_batch_end(self, trainer, pl_module, *args):
        now = torch.cat([p.detach().flatten() for p in pl_module.module.get_submodule(self.layer).parameters()])
        self.ratios.append(((now - self.old).norm() / self.old.norm()).item())


@pytest.mark.parametrize(
    ("stage", "layer", "prefix"),
    [("representation", "z_encoder.mean_encoder", ""), ("flow", "flow.state_in", "flow_")],
)
def test_norms_and_ratios_of_layers(make, stage, layer, prefix):
    model = make()
    if stage == "flow":
        train(model, stage="representation")
    compare = Compare(layer)
    history = train(model, GradientMonitor(every_n_steps=2), compare, stage=stage).history
    norms, ratios = (history[f"{prefix}{name}/{layer}"] for name in ("gradient_norm", "update_ratio"))
    assert norms.index.tolist() == list(range(0, len(compare.norms), 2))
    np.testing.assert_allclose(norms.iloc[:, 0], compare.norms[::2], rtol=1e-4)
    np.testing.assert_allclose(ratios.iloc[:, 0], compare.ratios[::2], rtol=1e-3)
    np.testing.assert_allclose(history[f"{prefix}gradient_norm"].iloc[:, 0], compare.total[::2], rtol=1e-4)


def test_parts_add_up_and_each_stage_has_its_own(make):
    history = train(make(), GradientMonitor(every_n_steps=1)).history
    for prefix, parts in (
        ("", {"encoder", "decoder", "dispersion"}),
        ("flow_", {"context", "base", "effect", "trunk"}),
    ):
        found = {key.partition("gradient_flow/")[2] for key in history if key.startswith(f"{prefix}gradient_flow/")}
        assert found == parts
        squares = sum(history[f"{prefix}gradient_flow/{part}"].iloc[:, 0] ** 2 for part in parts)
        np.testing.assert_allclose(np.sqrt(squares), history[f"{prefix}gradient_norm"].iloc[:, 0], rtol=1e-5)


def test_dead_units_clipping_and_saturation(make):
    model = make()
    with torch.no_grad():
        layer = model.module.decoder.px_decoder.fc_layers[0]
        layer[1].bias[:4] = -1e4  # four of sixteen units never pass their ReLU
        model.module.parametrizations.px_r.original[:15] = 200.0  # a quarter of the genes is at the bound
    history = train(model, GradientMonitor(every_n_steps=1), gradient_clip_val=1e-6, stage="representation").history
    dead = {key: frame.iloc[:, 0].tolist() for key, frame in history.items() if key.startswith("dead_units/")}
    assert dead["dead_units/decoder.px_decoder.fc_layers.Layer 0.0"] == [0.25, 0.25]
    assert dead["dead_units/z_encoder.mean_encoder"] == [0.0, 0.0]
    assert history["gradient_clipped"].iloc[:, 0].tolist() == [1.0, 1.0]
    assert history["saturated/px_r"].iloc[:, 0].tolist() == [0.25, 0.25]
    history = train(make(), GradientMonitor(every_n_steps=1), gradient_clip_val=1e6, stage="representation").history
    assert history["gradient_clipped"].iloc[:, 0].tolist() == [0.0, 0.0]
    assert history["saturated/px_r"].iloc[:, 0].tolist() == [0.0, 0.0]


def test_the_steps_before_a_failure_are_kept(make):
    class Spoil(Callback):
        def on_after_backward(self, trainer, pl_module):
            if trainer.global_step == 3:
                pl_module.module.z_encoder.mean_encoder.weight.grad[0, 0] = torch.nan

    model = make()
    with pytest.raises(NonFiniteError):
        train(model, GradientMonitor(every_n_steps=1), Spoil(), stage="representation")
    norms = model.history["gradient_norm/z_encoder.mean_encoder"].iloc[:, 0]
    assert norms.index.tolist() == [0, 1, 2, 3]
    assert np.isfinite(norms[:3]).all()
    assert np.isnan(norms[3])


def test_any_logger_gets_it(make, tmp_path):
    logger = CSVLogger(tmp_path)
    train(make(), GradientMonitor(every_n_steps=2), stage="representation", logger=logger)
    logger.save()
    table = pd.read_csv(f"{logger.log_dir}/metrics.csv")
    recorded = table.dropna(subset="gradient_norm/z_encoder.mean_encoder")
    assert recorded["step"].tolist() == list(range(0, 8, 2))
    assert table["dead_units/z_encoder.mean_encoder"].notna().sum() == 2


def test_it_changes_nothing(make):
    states = []
    for hooks in ([], [GradientMonitor(every_n_steps=1)]):
        torch.manual_seed(1)
        states.append(train(make(), *hooks, stage="representation", shuffle_set_split=False).module.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_it_is_drawn(make):
    history = train(make(), GradientMonitor(every_n_steps=2)).history
    heat, lines = pl.gradients(history, stage="flow")
    assert {"state_in", "perturbation_encoder.out"} <= {t.get_text() for t in heat.get_yticklabels()}
    assert {line.get_label() for line in lines.lines} == {"context", "base", "effect", "trunk"}
    with pytest.raises(DataError, match="stage 'joint'; recorded: representation, flow"):
        pl.gradients(history, stage="joint")
    with pytest.raises(DataError, match="GradientMonitor"):
        pl.gradients({})


def test_the_interval_is_checked():
    with pytest.raises(ValueError, match="every_n_steps is 0"):
        GradientMonitor(every_n_steps=0)
