import sys

import numpy as np
import pytest

from cfmvc_scvi import benchmark as bm
from cfmvc_scvi.errors import DataError, MissingExtraError


@pytest.fixture
def sides(tiny_adata):
    """Real cells of A and B in T, and control cells."""
    inside = tiny_adata[tiny_adata.obs["cell_type"] == "T"]
    is_control = (inside.obs["perturbation"] == "control").to_numpy()
    return inside[~is_control].copy(), inside[is_control].copy()


@pytest.mark.extra
def test_the_truth_scores_best(sides):
    pytest.importorskip("cell_eval2")
    truth, control = sides
    labels = truth.obs["perturbation"]
    right = bm.challenge_scores(truth, truth, control, labels, labels)
    swapped = bm.challenge_scores(truth, truth, control, labels.map({"A": "B", "B": "A"}), labels)
    right, swapped = (table.groupby("metric").value.mean() for table in (right, swapped))
    assert right["pds_cosine"] == 1.0 and swapped["pds_cosine"] == 0.0
    assert right["de_wilcoxon_sig_jaccard"] == 1.0 > swapped["de_wilcoxon_sig_jaccard"]
    assert right["expr_mse_unbiased_capped"] < swapped["expr_mse_unbiased_capped"]


@pytest.mark.extra
def test_one_condition_has_no_discrimination(sides):
    pytest.importorskip("cell_eval2")
    truth, control = sides
    only = truth[truth.obs["perturbation"] == "A"].copy()
    table = bm.challenge_scores(only, only, control, only.obs["perturbation"], only.obs["perturbation"])
    assert set(table["condition"]) == {"A"}
    assert "pds_cosine" not in set(table["metric"])


def test_what_cannot_be_scored_is_refused(sides, monkeypatch):
    truth, control = sides
    labels = list(truth.obs["perturbation"])
    monkeypatch.setitem(sys.modules, "cell_eval2", None)
    with pytest.raises(MissingExtraError, match="cfmvc-scvi\\[eval\\]"):
        bm.challenge_scores(truth, truth, control, labels, labels)


@pytest.mark.extra
def test_what_are_no_counts_or_other_groups_is_refused(sides):
    pytest.importorskip("cell_eval2")
    truth, control = sides
    labels = list(truth.obs["perturbation"])
    with pytest.raises(DataError, match="give the same on both sides"):
        bm.challenge_scores(truth, truth, control, ["A"] * len(labels), labels)
    with pytest.raises(DataError, match="different genes"):
        bm.challenge_scores(truth[:, ::-1].copy(), truth, control, labels, labels)
    logged = truth.copy()
    logged.X = np.log1p(logged.X)
    with pytest.raises(DataError):
        bm.challenge_scores(logged, truth, control, labels, labels)
