import numpy as np
import pandas as pd
import pytest

from cfmvc_scvi import benchmark as bm
from cfmvc_scvi.errors import DataError, UnknownConditionError


def tidy(values):
    """Table of two contexts: {(method, context): (distance, scale, pearson)}."""
    rows = [
        (method, "A", context, 0, metric, value)
        for (method, context), numbers in values.items()
        for metric, value in zip(
            ("energy_distance", "energy_scale", "mmd_distance", "mmd_scale", "pearson_delta"),
            (*numbers[:2], *numbers[:2], numbers[2]),
            strict=True,
        )
    ]
    return pd.DataFrame(rows, columns=["method", "condition", "context", "seed", "metric", "value"])


@pytest.fixture
def table():
    return tidy(
        {
            ("model", "x"): (0.1, 1.0, 0.9),
            ("model", "y"): (0.3, 9.0, 0.7),
            ("base", "x"): (0.5, 1.0, 0.8),
            ("base", "y"): (1.5, 9.0, np.nan),
        }
    )


def test_summary_divides_sums_and_leaves_undefined_scores_out(table):
    summary = bm.summarise(table)
    assert list(summary.index) == ["model", "base"]
    assert list(summary.columns) == ["energy", "mmd", "pearson_delta"]
    assert summary.loc["model", "energy"] == pytest.approx(0.4 / 10)
    assert summary.loc["base", "mmd"] == pytest.approx(2.0 / 10)
    assert summary.loc["base", "pearson_delta"] == pytest.approx(0.8)


def test_paired_differences_and_their_interval_over_contexts(table, rng):
    table = table.fillna(0.7)
    gain = bm.paired_differences(table, "model", "base", rng, n_bootstrap=400)
    assert gain.loc["energy", "difference"] == pytest.approx(-0.16)
    assert gain.loc["pearson_delta", "difference"] == pytest.approx(0.05)
    # draws are xx, xy or yy: -.4, -.16 and -.1333 for energy; .1, .05 and 0 for Pearson
    assert gain.loc["energy", ["low", "high"]].tolist() == pytest.approx([-0.4, -1.2 / 9])
    assert gain.loc["pearson_delta", ["low", "high"]].tolist() == pytest.approx([0.0, 0.1])


def test_paired_differences_refuse_unknown_methods_and_one_context(table, rng):
    with pytest.raises(UnknownConditionError, match="No scores of 'other'; there are: base, model"):
        bm.paired_differences(table, "model", "other", rng)
    with pytest.raises(DataError, match="one context"):
        bm.paired_differences(table[table.context == "x"], "model", "base", rng)
