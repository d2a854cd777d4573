import pandas as pd
import pytest
from rich.console import Console

from cfmvc_scvi.cli._scores import comparison, score_table, verdict


@pytest.fixture
def summary() -> pd.DataFrame:
    columns = {
        "pearson_delta": [0.0, 0.8, 0.7, 0.9, 0.95],
        "energy": [1.0, 0.3, 0.2, 0.25, 0.0],
        "weighted_mse": [5.0, 0.3, 0.2, 0.1, 0.0],
        "sig_jaccard": [0.0, 0.3, 0.4, 0.5, 0.6],
        "de_overlap": [0.0, 0.3, 0.4, 0.5, 0.6],
        "variance_log_ratio": [-2.0, -2.0, 0.3, -0.1, 0.0],
    }
    return pd.DataFrame(columns, ["no change", "mean shift", "count-coupled nearest", "CFMVC", "ceiling"])


def test_best_is_what_is_best_for_the_metric(summary):
    compared = comparison(summary)
    assert compared["by"].to_dict() == {
        "pearson_delta": "mean shift",
        "energy": "count-coupled nearest",
        "weighted_mse": "count-coupled nearest",
        "sig_jaccard": "count-coupled nearest",
        "de_overlap": "count-coupled nearest",
        "variance_log_ratio": "count-coupled nearest",
    }
    assert list(compared.index[~compared["wins"].astype(bool)]) == ["energy"]


def test_verdict_names_what_is_lost(summary):
    assert verdict(comparison(summary)).endswith("on 5 of 6 metrics; not on: energy distance.")
    summary.loc["CFMVC", "energy"] = 0.1
    assert "all 6 metrics" in verdict(comparison(summary))
    summary.loc["CFMVC"] = summary.loc["no change"] - [1, -1, -1, 1, 1, 1]
    assert "any of 6 metrics" in verdict(comparison(summary))


def test_table_fits_a_terminal(summary):
    console = Console(width=80, record=True)
    console.print(score_table(comparison(summary), "title"))
    shown = console.export_text()
    assert "…" not in shown
    assert "0.900" in shown
