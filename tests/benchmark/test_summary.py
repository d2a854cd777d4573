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


def test_skill_is_zero_at_the_floor_and_one_at_the_ceiling():
    summary = pd.DataFrame(
        {"pearson_delta": [0.1, 0.5, 0.9], "energy": [1.0, 0.2, 0.0], "variance_log_ratio": [-2.0, 1.0, 0.0],
         "zero_share_error": [0.0, 0.1, 0.0], "mmd": [1, 1, 1]},
        ["no change", "m", "ceiling"],
    )  # fmt: skip
    skill = bm.skills(summary)
    assert list(skill.index) == ["m"] and "mmd" not in skill
    assert skill.loc["m", ["pearson_delta", "energy", "variance_log_ratio"]].tolist() == pytest.approx([0.5, 0.8, 0.5])
    assert np.isnan(skill.loc["m", "zero_share_error"])  # no room between floor and ceiling
    with pytest.raises(UnknownConditionError, match="No scores of 'none'"):
        bm.skills(summary, floor="none")


def test_mean_rank_knows_which_way_is_better():
    columns = {"pearson_delta": [0.9, 0.5, 1.0], "energy": [0.1, 0.3, 0.0], "zero_share_error": [0.0, -0.1, 0.05]}
    rank = bm.mean_rank(pd.DataFrame(columns, ["a", "b", "ceiling"]))
    assert rank.to_dict() == {"a": 1.0, "b": 2.0}


def test_spread_over_seeds(table):
    other = table.assign(seed=1, value=table["value"] * np.where(table.metric == "pearson_delta", 2, 1))
    spread = bm.seed_spread(pd.concat([table, other])).set_index(["method", "metric"])
    assert spread.loc[("model", "pearson_delta"), "mean"] == pytest.approx(1.2)
    assert spread.loc[("model", "pearson_delta"), "sd"] == pytest.approx(0.8 / np.sqrt(2))
    assert spread.loc[("model", "energy")].tolist() == pytest.approx([0.04, 0.0])
    assert bm.seed_spread(table)["sd"].isna().all()


def test_differences_need_the_same_groups_and_can_be_over_conditions(table, rng):
    table = table.fillna(0.7)
    with pytest.raises(DataError, match="not scored on the same groups"):
        bm.paired_differences(table[(table.context == "x") | (table.method == "model")], "model", "base", rng)
    table.loc[table.context == "y", "condition"] = "B"
    gain = bm.paired_differences(table, "model", "base", rng, n_bootstrap=400, cluster="condition")
    assert gain.loc["pearson_delta", ["low", "high"]].tolist() == pytest.approx([0.0, 0.1])
    with pytest.raises(DataError, match="There is one condition"):
        bm.paired_differences(table.assign(condition="A"), "model", "base", rng, cluster="condition")
