"""Intervals and trust of a model: what they fall with, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from cfmvc_scvi import CFMVC
from cfmvc_scvi.errors import DataError


@pytest.fixture(scope="module")
def unseen(_counts_adata: ad.AnnData, make_model: Callable[..., CFMVC], quick: dict[str, Any]) -> CFMVC:
    """A model that has not seen A in T."""
    obs = _counts_adata.obs
    adata = _counts_adata[~((obs["perturbation"] == "A") & (obs["cell_type"] == "T"))].copy()
    model = make_model(adata)
    model.train(**quick)
    return model


def by_context(table: pd.DataFrame) -> pd.Series:
    """Mean width of the intervals of each context."""
    return (table["high"] - table["low"]).groupby(table["context"]).mean()


def test_intervals_hold_the_effect_and_grow_with_level_and_fewer_cells(unseen: CFMVC) -> None:
    table = unseen.get_effect("A")
    assert ((table["low"] < table["delta"]) & (table["delta"] < table["high"])).all()
    widths = [by_context(unseen.get_effect("A", level=level)) for level in (0.5, 0.8, 0.9)]
    assert (widths[0] < widths[1]).all() and (widths[1] < widths[2]).all()
    few, many = (by_context(unseen.get_effect("A", n_cells=n)) for n in (5, 5000))
    assert (few > widths[2]).all() and (widths[2] > many).all()


def test_calibration_is_computed_once_and_repeats(unseen: CFMVC) -> None:
    first = unseen.get_effect("A")
    kept = unseen._reference.goals.calibration
    assert kept.n_contexts == 3 and unseen._reference.goals.calibration is kept
    del unseen._reference.goals.calibration
    pd.testing.assert_frame_equal(first, unseen.get_effect("A"))


@pytest.mark.parametrize(
    ("asked", "words"),
    [({"level": 1.0}, "level is 1.0"), ({"level": 90}, "level is 90"), ({"n_cells": 0}, "n_cells is 0")],
)
def test_impossible_intervals_are_refused(unseen: CFMVC, asked: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        unseen.get_effect("A", **asked)


def test_trust_says_what_it_rests_on(unseen: CFMVC) -> None:
    table = unseen.get_trust("A").set_index("context")
    assert list(table["observed"]) == [name != "T" for name in table.index]
    assert table["trust"].between(0, 1).all() and table["trust"].idxmin() == "T"
    assert (table["n_contexts"] == 2).all() and table.loc["T", "n_cells"] == table["n_cells"].drop("T").sum()
    assert table.loc["T", "distance"] > 0 and (table["distance"].drop("T") == 0).all()
    assert list(table["calibrated"]) == [name == "T" for name in table.index]
    assert not table[["extrapolated", "composed"]].to_numpy().any()
    np.testing.assert_allclose(table["trust"], 1 / (1 + table["expected_error"] ** 2))
    words = pd.cut(table["trust"], [-1, 0.5, 0.75, 2], right=False, labels=["low", "medium", "high"])
    assert list(words) == list(table["word"])
    assert (unseen.get_trust("control")["trust"] == 1).all()
    both = unseen.get_trust("A+B")
    assert both["composed"].all() and not both[["observed", "calibrated"]].to_numpy().any()


def test_trust_falls_with_inflation_and_uncertainty(unseen: CFMVC) -> None:
    reference = unseen._reference
    before = unseen.get_trust("A").set_index("context")["trust"]
    kept, goals = reference.goals.calibration, dict(reference._goals)
    try:
        raised = {context: 9 * value for context, value in kept.inflations.items()}
        reference.goals.calibration = replace(kept, inflation=9 * kept.inflation, inflations=raised)
        inflated = unseen.get_trust("A").set_index("context")["trust"]
        reference.goals.calibration = kept
        reference._goals.update({code: replace(goal, sd=2 * goal.sd) for code, goal in goals.items()})
        noisy = unseen.get_trust("A").set_index("context")["trust"]
    finally:
        reference.goals.calibration = kept
        reference._goals.update(goals)
    assert inflated["T"] < before["T"] and inflated["B"] == before["B"] and (noisy < before).all()


def test_intervals_of_responding_genes_and_trust_know_of_the_amplitude(unseen: CFMVC) -> None:
    reference = unseen._reference
    kept = reference.goals.calibration
    results = []
    try:
        for amplitude in (0.0, 0.5):
            reference.goals.calibration = replace(kept, amplitude=amplitude)
            table = unseen.get_effect("A").set_index(["context", "gene"]).sort_index().loc["T"]
            results.append((table, unseen.get_trust("A").set_index("context").loc["T", "trust"]))
    finally:
        reference.goals.calibration = kept
    (narrow, more), (wide, less) = results
    ratio = (wide["high"] - wide["low"]) / (narrow["high"] - narrow["low"])
    largest = narrow["delta"].abs().idxmax()
    assert ratio[largest] > 1.1 and ratio[narrow["delta"].abs().idxmin()] < 1.01 and less < more


def test_prediction_alone_makes_no_calibration(unseen: CFMVC, tiny_adata: ad.AnnData) -> None:
    reference, kept = unseen._reference, unseen._reference.goals.calibration
    try:
        del reference.goals.calibration
        result = unseen.predict_counterfactual(tiny_adata, perturbation="A", seed=0)
        assert "calibration" not in vars(reference.goals) and "trust" not in result.obs
        unseen.predict_counterfactual(tiny_adata, perturbation="A", seed=0, trust=True)
        assert "calibration" in vars(reference.goals)
    finally:
        reference.goals.calibration = kept


def test_predicted_cells_carry_trust_through_a_file(unseen: CFMVC, tiny_adata: ad.AnnData, tmp_path: Path) -> None:
    result = unseen.predict_counterfactual(tiny_adata, perturbation="A", seed=0, trust=True)
    expected = unseen.get_trust("A").set_index("context")["trust"]
    moved = (result.obs["source_condition"] != "A").to_numpy()
    target = result.obs["target_context"].astype(str)[moved].map(expected)
    np.testing.assert_allclose(result.obs["trust"][moved], target)
    assert (result.obs["trust"][~moved] == 1).all()
    result.write_h5ad(tmp_path / "result.h5ad")
    np.testing.assert_array_equal(ad.read_h5ad(tmp_path / "result.h5ad").obs["trust"], result.obs["trust"])
