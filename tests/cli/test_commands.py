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


def test_evaluate_scores_predicted_cells(run, model, data, tmp_path):
    predicted, out = tmp_path / "predicted.h5ad", tmp_path / "scores.csv"
    assert run("predict", model, data, "--perturbation", "A", "--out", predicted).exit_code == 0
    result = run("evaluate", predicted, data, "--context-key", "cell_type", "--out", out)
    assert result.exit_code == 0, result.output
    scores = pd.read_csv(out)
    assert set(scores["method"]) == {"prediction", "no change", "ceiling"}
    assert set(scores["condition"]) == {"A"} and set(scores["context"]) == {"B", "T", "mono", "*"}
    assert "3 of 6 groups are left out" in result.stderr  # those of B
    assert "Mean over 3 groups" in result.stdout and "Pearson Delta" in result.stdout
    assert run("evaluate", predicted, data, "--context-key", "cell_type", "--out", out).exit_code == 2  # is there


@pytest.mark.extra
def test_evaluate_by_the_suite_of_the_challenge(run, data, tmp_path):
    pytest.importorskip("cell_eval2")
    cells, half = ad.read_h5ad(data), tmp_path / "half.h5ad"
    cells[cells.obs["perturbation"] != "control"][::2].write_h5ad(half)
    result = run("evaluate", half, data, "--context-key", "cell_type", "--suite", "challenge")
    assert result.exit_code == 0, result.output
    assert "pds_cosine" in result.stdout


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
