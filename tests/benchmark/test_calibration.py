"""Coverage and trust of held-out predictions: closed forms, planted errors, and what is refused."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from cfmvc_scvi import pl
from cfmvc_scvi.benchmark import (
    MeasuredEffect,
    StatedEffect,
    coverage_table,
    measured_effect,
    relative_error,
    stated_scores,
    trust_table,
)
from cfmvc_scvi.errors import DataError, NonFiniteError


def stated(rng: np.random.Generator, error: float = 0.2, trust: float = 0.9) -> tuple[StatedEffect, MeasuredEffect]:
    """A prediction that is off by `error`, and says so in its intervals; and the truth."""
    truth, noise = rng.normal(0, 0.5, 4000), np.full(4000, 0.01)
    control = rng.normal(0, 0.1, 4000)  # its noise is in both
    measured = MeasuredEffect(truth + control + rng.normal(0, 0.1, 4000), noise, noise)
    effect = truth + control + rng.normal(0, error, 4000)
    half = {level: norm.ppf(0.5 + level / 2) * np.hypot(error, 0.1) for level in (0.5, 0.9)}
    intervals = {level: (effect - width, effect + width) for level, width in half.items()}
    return StatedEffect(effect, intervals, trust), measured


def tidy(scores: dict[str, dict[str, float]]) -> pd.DataFrame:
    """Scores {context: {metric: value}} of one method, and others that tables must not take in."""
    rows = [("CFMVC", "A", context, 0, *pair) for context, of in scores.items() for pair in of.items()]
    others = [("no change", "A", context, 0, "energy", 1.0) for context in scores]
    return pd.DataFrame(rows + others, columns=["method", "condition", "context", "seed", "metric", "value"])


def test_honest_intervals_are_on_the_line_and_the_frame_can_be_drawn() -> None:
    rng = np.random.default_rng(0)
    table = coverage_table(tidy({context: stated_scores(*stated(rng)) for context in "BT"}))
    assert list(table) == ["method", "condition", "context", "seed", "nominal", "observed"]
    assert len(table) == 4 and (table["method"] == "CFMVC").all()
    assert (table["observed"] - table["nominal"]).abs().max() < 0.02
    assert len(pl.calibration(table, show=False).lines) == 2


def test_errors_are_those_planted_and_rank_against_trust() -> None:
    rng = np.random.default_rng(1)
    errors = {"B": 0.1, "T": 0.3, "M": 0.6}
    table = trust_table(tidy({name: stated_scores(*stated(rng, error, 1 - error)) for name, error in errors.items()}))
    table = table.set_index("context").loc[list(errors)].reset_index()
    assert {"trust", "error", "correlation_error"} <= set(table)
    assert table["error"].is_monotonic_increasing and table["correlation_error"].is_monotonic_increasing
    axes = pl.trust(table["trust"], table["error"], list(table["context"]), show=False)
    assert axes.get_title(loc="left") == "Spearman -1.00, n = 3"


def test_what_is_not_stated_is_not_in_the_tables() -> None:
    one, measured = stated(np.random.default_rng(5))
    silent = tidy({"B": stated_scores(replace(one, intervals={}, trust=np.nan), measured)})
    assert len(trust_table(silent)) == len(coverage_table(silent)) == 0
    constant = stated_scores(replace(one, effect=np.zeros(4000), intervals={}), measured)
    assert set(constant) == {"trust", "relative_error"}
    assert np.isnan(trust_table(tidy({"B": constant}))["correlation_error"]).all()


def test_relative_error_is_free_of_noise_and_one_for_no_effect() -> None:
    rng = np.random.default_rng(2)
    truth, noise = rng.normal(0, 0.3, 20_000), rng.gamma(2.0, 0.02, 20_000)
    control = rng.normal(0, np.sqrt(noise))
    measured = MeasuredEffect(truth + rng.normal(0, np.sqrt(noise)) + control, noise, noise)
    assert relative_error(truth + control, measured) < 0.15
    assert relative_error(1.5 * truth + control, measured) == pytest.approx(0.5, abs=0.05)
    none = MeasuredEffect(rng.normal(0, np.sqrt(2 * noise)), noise, noise)
    assert 1 < relative_error(truth, none) < np.inf


def test_measured_effects_are_those_of_the_cells() -> None:
    rng = np.random.default_rng(3)
    control, truth = rng.poisson(3.0, (160, 30)), rng.poisson(3.0, (40, 30))
    measured = measured_effect(truth, control)
    logs = [np.log1p(1e4 * cells / cells.sum(axis=1, keepdims=True)).mean(axis=0) for cells in (truth, control)]
    np.testing.assert_allclose(measured.effect, logs[0] - logs[1])
    assert np.log(measured.noise / measured.control_noise).mean() == pytest.approx(np.log(4), abs=0.2)
    for cells in (truth[:, :9], truth[:0]):
        with pytest.raises(DataError, match="same genes"):
            measured_effect(cells, control)


def test_what_does_not_fit_is_refused() -> None:
    one, measured = stated(np.random.default_rng(4))
    low, high = one.intervals[0.9]
    with pytest.raises(DataError, match="shapes"):
        replace(one, effect=one.effect[:9])
    with pytest.raises(DataError, match="level is 90"):
        replace(one, intervals={90: (low, high)})
    with pytest.raises(DataError, match="4000 intervals of level 0.9 end before"):
        replace(one, intervals={0.9: (high, low)})
    with pytest.raises(NonFiniteError, match="1 stated effects"):
        replace(one, effect=np.where(np.arange(4000) == 3, np.nan, one.effect))
    with pytest.raises(DataError, match="same genes"):
        stated_scores(replace(one, effect=one.effect[:9], intervals={}), measured)
