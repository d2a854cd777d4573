"""Expected counts: functions of the cell alone, unchanged under its own condition, and no business of counts."""

from collections.abc import Callable
from functools import partial
from typing import Any

import anndata as ad
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cfmvc_scvi import CFMVC
from cfmvc_scvi.config import ObservationConfig
from cfmvc_scvi.model import plan
from cfmvc_scvi.observe import ResponseFilter, fit_response_filter

relaxed = settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ASKED = {"perturbation": "A", "dose": 2.0, "seed": 0}


def expected(model: CFMVC, cells: ad.AnnData, *indices: Any, **asked: Any) -> np.ndarray:
    return model.predict_counterfactual(cells.copy(), *indices, **({"output": "normalized", "seed": 0} | asked)).X


def controls(data: ad.AnnData) -> ad.AnnData:
    return data[data.obs["perturbation"] == "control"].copy()


@pytest.fixture
def fits(law_model: CFMVC, monkeypatch: pytest.MonkeyPatch) -> list[ResponseFilter]:
    """Collect the filters that are fitted, of a model that has kept none."""
    found: list[ResponseFilter] = []

    def fit(*arguments: Any) -> ResponseFilter:
        found.append(fit_response_filter(*arguments))
        return found[-1]

    monkeypatch.setattr(plan, "fit_response_filter", fit)
    monkeypatch.setattr(law_model, "_kept", None)
    return found


def test_expected_counts_under_the_own_condition_are_not_touched(
    law_model: CFMVC, law_data: ad.AnnData, fits: list[ResponseFilter]
) -> None:
    cells = controls(law_data)[:40].copy()
    plain = expected(law_model, cells)
    assert np.array_equal(expected(law_model, cells, perturbation="control"), plain)
    assert np.array_equal(expected(law_model, cells, perturbation="control", heterogeneity=0.0), plain)
    assert not fits
    both = law_data[np.isin(law_data.obs["perturbation"], ["control", "A"]) & (law_data.obs["dose"] != 0.5)]
    own = (both.obs["perturbation"] == "A").to_numpy()
    among_others = expected(law_model, both, **ASKED)[own]
    assert fits
    np.testing.assert_allclose(among_others, expected(law_model, both)[own], rtol=1e-6)


def test_there_is_one_filter_per_pair_of_groups_and_none_without_a_flow_or_for_counts(
    law_model: CFMVC, law_data: ad.AnnData, fits: list[ResponseFilter]
) -> None:
    cells = controls(law_data)
    for asked in ({"heterogeneity": 0.0}, {"output": "counts"}, {"output": "latent"}):
        expected(law_model, cells, **ASKED, **asked)
    assert not fits
    expected(law_model, cells, **ASKED, batch_size=7)
    assert len(fits) == cells.obs["cell_type"].nunique()
    assert all(np.isfinite(response.gain).all() for response in fits)


@given(data=st.data())
@relaxed
def test_neither_order_nor_companions_nor_batch_size_matter(
    law_model: CFMVC, law_data: ad.AnnData, data: st.DataObject
) -> None:
    cells = law_data[law_data.obs["dose"] != 2.0][:80].copy()
    everything = expected(law_model, cells, **ASKED)
    rows = np.array(data.draw(st.lists(st.integers(0, cells.n_obs - 1), min_size=1, max_size=40, unique=True)))
    batch_size = data.draw(st.integers(1, 50))
    np.testing.assert_allclose(
        expected(law_model, cells[rows], **ASKED, batch_size=batch_size), everything[rows], rtol=1e-6
    )
    np.testing.assert_allclose(expected(law_model, cells, rows, **ASKED), everything[rows], rtol=1e-6)


def test_the_filter_takes_away_differences_and_leaves_the_mean(
    law_model: CFMVC, law_data: ad.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = controls(law_data)
    before, filtered = expected(law_model, cells), expected(law_model, cells, **ASKED)
    monkeypatch.setattr(plan.Observation, "_response", lambda *_: None)
    raw = expected(law_model, cells, **ASKED)
    for context in cells.obs["cell_type"].unique():
        mine = (cells.obs["cell_type"] == context).to_numpy()
        less, more = (np.log1p(after[mine]) - np.log1p(before[mine]) for after in (filtered, raw))
        assert less.var(axis=0).sum() < more.var(axis=0).sum()
        assert np.corrcoef(less.mean(axis=0), more.mean(axis=0))[0, 1] > 0.95
    np.testing.assert_allclose(filtered.sum(axis=1), raw.sum(axis=1), rtol=1e-6)


def test_the_seed_and_a_saved_model_give_the_same_expected_counts(
    law_model: CFMVC, law_data: ad.AnnData, scrambled: Callable[[int], CFMVC]
) -> None:
    cells, copied = controls(law_data)[:30].copy(), scrambled(0)
    np.testing.assert_allclose(expected(copied, cells, **ASKED), expected(law_model, cells, **ASKED), rtol=1e-6)
    other = expected(scrambled(1), cells, **ASKED)
    assert not np.allclose(other, expected(law_model, cells, **ASKED), rtol=1e-2)


def test_expected_counts_are_of_cells_at_their_own_depth(
    law_model: CFMVC, law_data: ad.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How far counts may move their depth, which the sum of two effects asks for, plays no part in them."""
    counts, rates = [], []
    for bound in (0.0, 5.0):
        bounded = partial(plan.Observation, config=ObservationConfig(match_depth_change=bound))
        monkeypatch.setattr("cfmvc_scvi.model.kept.Observation", bounded)
        monkeypatch.setattr(law_model, "_kept", None)
        for found, output in ((counts, "counts"), (rates, "normalized")):
            found.append(expected(law_model, controls(law_data), perturbation="A+B", output=output))
    np.testing.assert_array_equal(*rates)
    assert (counts[0] != counts[1]).nnz > 0
