import pandas as pd
import pytest

from cfmvc_scvi.benchmark.report import tables


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (-0.5, "−0.500"), (-1e-12, "0.000"), (float("nan"), "–"), (float("-inf"), "–")],
)
def test_numbers(value, text):
    assert tables.number(value) == text


def test_the_sign_of_a_small_difference_is_seen():
    row = {"difference": -0.00042, "low": -0.0012, "high": -0.00002, "outcome": "lose"}
    pair = pd.DataFrame([row], index=["pearson_delta"])
    (other, cell), *_ = tables.pair_table({"without": pair}, "CFMVC").rows
    assert (other.text, cell.text, cell.note, cell.mark) == ("without", "−0.0004", "−0.001 to −0.00002", "lose")


def test_a_pair_without_a_metric_has_a_dash():
    row = pd.DataFrame({"difference": 0.1, "low": 0.05, "high": 0.2, "outcome": "win"}, index=["energy"])
    table = tables.pair_table({"a": row, "b": row.rename(index={"energy": "pearson_delta"})}, "CFMVC")
    assert [[cell.text for cell in line] for line in table.rows] == [["a", "–", "0.100"], ["b", "0.100", "–"]]
