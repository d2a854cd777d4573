import anndata as ad
import numpy as np
import pandas as pd
import pytest


def test_info_tells_what_the_model_is(run, model):
    result = run("info", model)
    assert result.exit_code == 0, result.output
    shown = " ".join(result.output.split())
    for part in ("60: gene0", "2: A, B", "control", "3: B, T, mono", "representation, flow", "scvi-tools", "2: b1, b2"):
        assert part in shown


def test_predicts_counts_of_control_cells(run, model, data, tmp_path):
    out = tmp_path / "predicted.h5ad"
    result = run("predict", model, data, "--perturbation", "A", "--out", out)
    assert result.exit_code == 0, result.output
    predicted, cells = ad.read_h5ad(out), ad.read_h5ad(data)
    control = cells[cells.obs["perturbation"] == "control"]
    assert list(predicted.obs_names) == list(control.obs_names)
    assert np.array_equal(predicted.X.data, np.rint(predicted.X.data))
    assert set(predicted.obs["target_condition"]) == {"A"}
    assert predicted.uns["cfmvc"]["arguments"]["seed"] == 0
    assert run("predict", model, data, "--perturbation", "A", "--out", out).exit_code == 2
    assert run("predict", model, data, "--perturbation", "A", "--out", out, "--overwrite").exit_code == 0
    assert (ad.read_h5ad(out).X != predicted.X).nnz == 0


def test_predicts_latents_of_all_cells(run, model, data, tmp_path):
    out = tmp_path / "latent.h5ad"
    result = run("predict", model, data, "--perturbation", "B", "--output", "latent", "--all-cells", "--out", out)
    assert result.exit_code == 0, result.output
    predicted = ad.read_h5ad(out)
    assert predicted.X is None
    assert predicted.obsm["X_cfmvc_counterfactual"].shape == (360, 32)


def test_evaluate_compares_with_baselines(run, data, tmp_path):
    out = tmp_path / "scores.csv"
    words = ("--context-key", "cell_type", "--hold-out", "T", "--epochs-representation", 1, "--epochs-flow", 1)
    result = run("evaluate", data, *words, "--out", out)
    assert result.exit_code == 0, result.output
    scores = pd.read_csv(out)
    assert {"CFMVC", "no change", "mean shift", "ceiling"} <= set(scores["method"])
    assert set(scores.loc[scores["condition"] != "*", "context"]) <= {"T", "*"}
    assert "baseline" in result.stdout
    assert "Pearson Delta" in result.stdout


@pytest.mark.slow
def test_demo(run, tmp_path):
    out = tmp_path / "demo"
    result = run("demo", "--out", out)
    assert result.exit_code == 0, result.output
    assert "Individual cells" in result.stdout
    scores = pd.read_csv(out / "metrics.csv", index_col=0)
    assert scores.loc["CFMVC", "pearson_delta"] > scores.loc["no change", "pearson_delta"]
    assert ad.read_h5ad(out / "counterfactual.h5ad").n_obs > 100
    assert {path.stem for path in out.glob("*.png")} == {"benchmark", "delta", "distributions", "embedding", "history"}
    assert run("info", out / "model").exit_code == 0
