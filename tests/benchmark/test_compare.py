import numpy as np
import pandas as pd
import pytest

from cfmvc_scvi import benchmark as bm
from cfmvc_scvi.errors import UnknownConditionError

CONTEXTS = ("x", "y", "z")


def tidy(values, metric="pearson_delta", condition="A"):
    """Scores {method: one value for each context}."""
    rows = [(m, condition, c, 0, metric, v) for m, all_ in values.items() for c, v in zip(CONTEXTS, all_, strict=True)]
    return pd.DataFrame(rows, columns=["method", "condition", "context", "seed", "metric", "value"])


@pytest.fixture
def scores():
    """Pearson is won, Jaccard lost, MSE within the noise, the variance right in magnitude only by cancelling."""
    tables = [
        tidy({"CFMVC": (0.9, 0.8, 0.9), "mean shift": (0.7, 0.7, 0.8), "nearest shift": (0.5, 0.6, 0.4),
              "no change": (0, 0, 0), "ceiling": (1, 1, 1)}),
        tidy({"CFMVC": (0.2, 0.3, 0.2), "mean shift": (0.1, 0.2, 0.2), "nearest shift": (0.5, 0.6, 0.4),
              "no change": (0, 0, 0), "ceiling": (0.9, 0.9, 0.9)}, "sig_jaccard"),
        tidy({"CFMVC": (1.0, 3.0, 2.0), "mean shift": (2.0, 1.0, 3.5), "nearest shift": (5, 5, 5),
              "no change": (9, 9, 9), "ceiling": (0, 0, 0)}, "weighted_mse"),
        tidy({"CFMVC": (0.5, 0.6, -0.5), "mean shift": (-3.0, 3.0, 0.0), "nearest shift": (-2.5, -2, -2),
              "no change": (-2, -2, -2), "ceiling": (0.1, -0.1, 0.1)}, "variance_log_ratio"),
    ]  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def test_the_best_baseline_is_chosen_for_each_metric(scores):
    compared = bm.compare(scores)
    assert compared["by"].to_dict() == {
        "pearson_delta": "mean shift",
        "weighted_mse": "mean shift",
        "sig_jaccard": "nearest shift",
        "variance_log_ratio": "no change",  # errors of two signs do not cancel
    }
    assert compared["outcome"].to_dict() == {
        "pearson_delta": "win",
        "weighted_mse": "tie",
        "sig_jaccard": "lose",
        "variance_log_ratio": "win",
    }
    row = compared.loc["pearson_delta"]
    assert (row["model"], row["best"], row["floor"], row["ceiling"]) == pytest.approx((2.6 / 3, 2.2 / 3, 0, 1))
    assert row["skill"] == pytest.approx(2.6 / 3)
    assert row["difference"] == pytest.approx(0.4 / 3) and row["low"] == pytest.approx(0.1)
    assert compared.loc["weighted_mse", "low"] < 0 < compared.loc["weighted_mse", "high"]
    assert compared.loc["variance_log_ratio", "model"] == pytest.approx(1.6 / 3)


def test_verdict_is_one_sentence_with_one_full_stop():
    compared = pd.DataFrame({"outcome": ["lose"]}, index=["context_discrimination"])
    assert bm.verdict(compared).endswith("worse on: context discrim.")


def test_a_metric_that_a_method_has_no_value_of_is_left_out(scores):
    partial = scores[~((scores["method"] == "CFMVC") & (scores["metric"] == "weighted_mse"))]
    compared = bm.compare(partial)
    assert "weighted_mse" not in compared.index and "pearson_delta" in compared.index


def test_verdict_says_what_is_not_won(scores):
    compared = bm.compare(scores)
    assert bm.verdict(compared, "Mine") == (
        "Mine beats the best simple baseline on 2 of 4 metrics; no clear difference on: weighted MSE; "
        "worse on: DE Jaccard."
    )
    won = compared[compared.outcome == "win"]
    assert bm.verdict(won) == "CFMVC beats the best simple baseline on all 2 metrics."
    lost = compared[compared.outcome != "win"]
    assert bm.verdict(lost).startswith("CFMVC does not beat the best simple baseline on any of 2 metrics;")


def test_baselines_can_be_named(scores):
    assert set(bm.compare(scores, baselines=["nearest shift"])["by"]) == {"nearest shift"}
    assert bm.compare(scores, "mean shift", ["CFMVC"]).loc["pearson_delta", "outcome"] == "lose"
    with pytest.raises(UnknownConditionError, match="No scores of 'other'"):
        bm.compare(scores, "other")
    with pytest.raises(UnknownConditionError, match="No scores of a simple baseline"):
        bm.compare(scores[scores.method.isin(["CFMVC", "ceiling"])].replace("CFMVC", "no change"), "no change")


def test_one_context_has_no_interval(scores):
    compared = bm.compare(scores[scores.context == "y"])
    assert compared[["low", "high"]].isna().all(axis=None)
    assert compared["outcome"].to_dict()["weighted_mse"] == "lose"


def test_conditions_are_drawn_where_they_are_more(scores):
    parts = [scores.assign(condition=name) for name in "ABCDE"]
    parts = [part[part.context == "x"] for part in parts]
    compared = bm.compare(pd.concat(parts))
    assert compared["low"].notna().all()


def test_discrimination_is_judged_without_an_interval(scores):
    values = {"CFMVC": 1.0, "mean shift": 0.5, "nearest shift": 0.8, "no change": 0.5, "ceiling": 1.0}
    rows = [(name, "A", "*", 0, "context_discrimination", value) for name, value in values.items()]
    compared = bm.compare(pd.concat([scores, pd.DataFrame(rows, columns=scores.columns)]))
    row = compared.loc["context_discrimination"]
    assert (row["by"], row["outcome"], row["skill"]) == ("nearest shift", "win", 1.0)
    assert np.isnan(row["low"])
