import anndata as ad
import numpy as np
import pytest

from cfmvc_scvi import benchmark as bm
from cfmvc_scvi import tl
from cfmvc_scvi.errors import CFMVCWarning, DataError, UnknownConditionError

KEYS = {"perturbation_key": "perturbation", "context_key": "cell_type"}


@pytest.fixture
def sides(tiny_adata):
    """Halves of the perturbed cells, and the control cells."""
    labels = tiny_adata.obs["perturbation"].to_numpy()
    perturbed = np.flatnonzero(labels != "control")
    return (*(tiny_adata[part].copy() for part in (perturbed[::2], perturbed[1::2], labels == "control")),)


def test_real_cells_score_between_floor_and_ceiling(sides):
    scores = tl.evaluate(*sides, **KEYS)
    assert list(scores.columns) == ["method", "condition", "context", "seed", "metric", "value"]
    groups = {(c, t) for c, t in zip(scores.condition, scores.context, strict=True) if "*" not in (c, t)}
    assert groups == {(p, t) for p in "AB" for t in ("B", "T", "mono")}
    summary = bm.summarise(scores)
    assert list(summary.index) == ["prediction", "no change", "ceiling"]
    assert summary.loc["prediction", "energy"] < 0.3 < 0.8 < summary.loc["no change", "energy"]
    compared = bm.compare(scores, "prediction")
    assert compared.loc["pearson_delta", "outcome"] == "win"
    assert {"context_discrimination", "perturbation_discrimination"} <= set(compared.index)


def test_one_group_needs_no_columns_and_genes_are_matched(sides):
    predicted, truth, control = (cells[cells.obs["cell_type"] == "T"].copy() for cells in sides)
    scores = tl.evaluate(predicted[:, ::-1].copy(), truth, control)
    straight = tl.evaluate(predicted, truth, control)
    np.testing.assert_allclose(scores.value, straight.value)
    assert set(scores.condition) == {"all cells"}
    logged = ad.AnnData(np.log1p(predicted.X.toarray()), obs=predicted.obs, var=predicted.var)
    with pytest.raises(DataError, match="not whole numbers"):
        tl.evaluate(logged, truth, control)
    assert len(tl.evaluate(logged, truth, control, scale="log1p_cp10k")) == len(scores)


def test_cells_of_the_model_know_their_condition(sides):
    predicted, truth, control = sides
    predicted.obs["target_condition"] = predicted.obs["perturbation"].astype(str)
    predicted.obs["perturbation"] = "control"
    assert bm.summarise(tl.evaluate(predicted, truth, control, **KEYS)).loc["prediction", "pearson_delta"] > 0.4


def test_parts_of_combinations_may_stand_in_any_order(sides):
    predicted, truth, control = sides
    predicted.obs["perturbation"] = "X+A"
    truth.obs["perturbation"] = "A+X"
    assert set(tl.evaluate(predicted, truth, control, **KEYS).condition) == {"A+X"}


def test_groups_that_cannot_be_scored_are_named(sides):
    predicted, truth, control = sides
    without = predicted[predicted.obs["cell_type"] != "T"].copy()
    with pytest.warns(CFMVCWarning, match="2 of 6 groups are left out, without predicted cells.*A in T, B in T"):
        scores = tl.evaluate(without, truth, control, **KEYS)
    assert "T" not in set(scores.context)
    with pytest.raises(DataError, match="no group can be scored, all 6"):
        tl.evaluate(predicted, truth, control[:5].copy(), **KEYS)
    with pytest.raises(UnknownConditionError, match="celltype"):
        tl.evaluate(predicted, truth, control, context_key="celltype")
    with pytest.raises(DataError, match="suite is 'all'"):
        tl.evaluate(predicted, truth, control, suite="all")


@pytest.mark.extra
def test_suite_of_the_challenge(sides):
    pytest.importorskip("cell_eval2")
    predicted, truth, control = (cells[cells.obs["cell_type"] != "B"].copy() for cells in sides)
    scores = tl.evaluate(predicted, truth, control, suite="challenge", **KEYS)
    assert set(scores.method) == {"prediction", "no change", "ceiling"}
    assert set(scores.context) == {"T", "mono"} and set(scores.condition) == {"A", "B"}
    summary = bm.summarise(scores)
    assert summary.loc["prediction", "pds_cosine"] == summary.loc["ceiling", "pds_cosine"] == 1.0
    assert summary.loc["prediction", "expr_mse_unbiased_capped_norm"] < 0.7
    jaccard = summary["de_wilcoxon_sig_jaccard"]
    assert jaccard["no change"] < jaccard["prediction"]
