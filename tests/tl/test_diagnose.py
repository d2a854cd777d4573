"""Each branch of the page on troubleshooting: the trouble is made, found and named; healthy models have none."""

from __future__ import annotations

import numpy as np
import pytest
import scvi
import torch

from cfmvc_scvi import CFMVC, tl
from cfmvc_scvi.callbacks import GradientMonitor

KEYS = {"batch_key": "batch", "labels_key": "cell_type", "perturbation_key": "perturbation"}


def findings(data, **keys):
    table = tl.diagnose(data, **keys)
    assert list(table.columns) == ["severity", "finding", "what", "remedy"]
    ranks = table["severity"].map({"high": 0, "medium": 1, "low": 2})
    assert ranks.notna().all()
    assert ranks.is_monotonic_increasing
    return {row.finding: row for row in table.itertuples()}


@pytest.fixture
def train(tiny_adata):
    """Train a small model; what differs from a healthy training is given by stage."""

    def train(*callbacks, epochs=12, **options):
        scvi.settings.seed = 0
        try:
            CFMVC.setup_anndata(tiny_adata, **KEYS)
            model = CFMVC(tiny_adata, n_intrinsic=4, n_technical=2, n_hidden=16, flow_kwargs={"n_hidden": 16})
            defaults = {"pair_kwargs": {"batch_size": 64, "steps_per_epoch": 5}, "enable_progress_bar": False}
            defaults |= {"accelerator": "cpu", "max_epochs": epochs, "batch_size": 64}
            model.train(**(defaults | options), callbacks=list(callbacks))
        finally:
            scvi.settings.seed = None
        return model

    return train


def test_healthy_data_have_no_finding(tiny_adata):
    assert findings(tiny_adata, **KEYS) == {}
    assert findings(tiny_adata) == {}


def log_normalised(adata):
    adata.X = np.log1p(adata.X.toarray())


def few_counts(adata):
    adata.X = (adata.X.toarray() > 6).astype(np.float32)


def missing_label(adata):
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(object)
    adata.obs.iloc[3, adata.obs.columns.get_loc("perturbation")] = np.nan


def no_control(adata):
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(str).replace("control", "untreated")


def context_without_control(adata):
    gone = (adata.obs["cell_type"] == "T") & (adata.obs["perturbation"] == "control")
    adata._inplace_subset_obs(~gone.to_numpy())


def perturbation_without_control(adata):
    only = adata.obs["perturbation"].astype(str).where(adata.obs["cell_type"] != "T", "C")
    adata.obs["perturbation"] = only


def batches_of_their_own(adata):
    adata.obs["batch"] = np.where(adata.obs["perturbation"] == "control", "b1", "b2")


def rare_perturbation(adata):
    label = adata.obs["perturbation"].astype(str).to_numpy()
    label[np.flatnonzero(label == "B")[10:]] = "A"
    adata.obs["perturbation"] = label


@pytest.mark.parametrize(
    ("spoil", "finding", "severity", "words"),
    [
        (log_normalised, "bad_counts", "high", "looks log-normalised"),
        (few_counts, "shallow", "medium", "fewer than"),
        (missing_label, "bad_labels", "high", "cell3"),
        (no_control, "no_control", "high", "untreated"),
        (context_without_control, "unmatched_contexts", "medium", "contexts without control cells: T"),
        (perturbation_without_control, "unmatched_contexts", "high", "C: no context has both"),
        (batches_of_their_own, "unmatched_batches", "medium", "240 perturbed cells are in batches without control"),
        (rare_perturbation, "too_few_cells", "medium", "B: fewer than 20 cells"),
    ],
)
def test_trouble_with_data(tiny_adata, spoil, finding, severity, words):
    spoil(tiny_adata)
    row = findings(tiny_adata, **KEYS)[finding]
    assert row.severity == severity
    assert words in row.what
    assert row.remedy


def test_a_model_that_is_not_trained(tiny_adata):
    CFMVC.setup_anndata(tiny_adata, **KEYS)
    row = findings(CFMVC(tiny_adata))["not_trained"]
    assert (row.severity, row.what) == ("high", "Not trained: representation, flow.")


def test_a_healthy_model_has_no_finding(train):
    model = train(GradientMonitor(every_n_steps=2), epochs={"representation": 40, "flow": 40})
    assert findings(model) == {}


def test_a_learning_rate_that_is_too_high(train):
    found = findings(train(GradientMonitor(every_n_steps=2), stage="representation", plan_kwargs={"lr": 1.0}))
    assert found["learning_rate"].severity == "medium"
    assert "plan_kwargs" in found["learning_rate"].remedy


def recorded(model, part, values):
    frame = model.history["reconstruction_loss_train"]
    longer = frame.iloc[:0].reindex(range(len(values)))
    model.history_[f"reconstruction_loss_{part}"] = longer.assign(**{frame.columns[0]: np.array(values, dtype=float)})


def test_a_loss_that_rose_again(train):
    model = train(epochs=1)
    recorded(model, "train", [90, 50, 40, 30, 70, 69, 71, 70])
    found = findings(model)
    assert found["learning_rate"].severity == "high"
    assert "ends at 70.5, after it had been at 30" in found["learning_rate"].what


def test_a_training_that_is_too_short(train):
    found = findings(train(stage="representation", plan_kwargs={"lr": 1e-3}, epochs=6))
    assert found["not_converged"].severity == "medium"
    assert "max_epochs={'representation'" in found["not_converged"].remedy


def test_posterior_collapse(train):
    options = {"max_kl_weight": 100.0, "min_kl_weight": 100.0, "n_epochs_kl_warmup": None}
    found = findings(train(stage="representation", plan_kwargs=options))
    assert found["posterior_collapse"].severity == "high"
    assert "max_kl_weight" in found["posterior_collapse"].remedy


def test_a_dead_effect(train):
    model = train(epochs=2)
    with torch.no_grad():
        model.module.flow.perturbation_encoder.embedding[0] = 0
    found = findings(model)
    assert found["dead_effect"].severity == "high"
    assert "for A:" in found["dead_effect"].what


def test_weights_that_are_not_finite(train):
    model = train(epochs=2)
    with torch.no_grad():
        model.module.flow.base_out.bias[0] = torch.nan
    assert "flow.base_out.bias" in findings(model)["not_finite"].what


def test_overfitting(train):
    model = train(epochs=2)
    recorded(model, "train", [9, 5, 4, 3, 2, 2])
    recorded(model, "validation", [9, 6, 6, 7, 8, 8])
    assert "rose from 6 to" in findings(model)["overfitting"].what


def test_dead_units_and_saturation_that_a_monitor_saw(train):
    model = train(GradientMonitor(every_n_steps=1), epochs=1, stage="representation")
    model.history_["dead_units/decoder"] = model.history["saturated/px_r"] * 0 + 0.75
    model.history_["saturated/px_r"] = model.history["saturated/px_r"] * 0 + 0.5
    found = findings(model)
    assert "decoder (75%)" in found["dead_units"].what
    assert "px_r (50%)" in found["saturated"].what


def test_a_model_without_data(train, tmp_path):
    model = train(epochs=1)
    model.save(tmp_path / "model")
    assert findings(CFMVC.load(tmp_path / "model", adata=False, accelerator="cpu")) == {}
