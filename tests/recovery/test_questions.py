"""Questions of a laboratory, asked of a model of simulated cells whose truth is known."""

from collections.abc import Callable

import anndata as ad
import numpy as np
import pytest

from cfmvc_scvi import CFMVC, tl
from cfmvc_scvi.datasets import simulated_perturbation, true_counterfactual
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.tl.rank_perturbations import NO_CHANGE

QUICK = {"max_epochs": {"representation": 20, "flow": 2}}


@pytest.fixture(scope="module")
def data() -> ad.AnnData:
    return simulated_perturbation(
        3000, 150, n_cell_types=2, perturbations=("A", "B", "C"), combinations=("A+B",), seed=1
    )


@pytest.fixture(scope="module")
def hidden(data: ad.AnnData) -> np.ndarray:
    return np.random.default_rng(0).random(data.n_obs) < 0.25


@pytest.fixture(scope="module")
def model(data: ad.AnnData, hidden: np.ndarray, fitted: Callable[..., CFMVC]) -> CFMVC:
    return fitted(data[~hidden], training=QUICK)


@pytest.fixture(scope="module")
def source(data: ad.AnnData, hidden: np.ndarray) -> ad.AnnData:
    return data[~hidden & of(data, "control")].copy()


def of(data: ad.AnnData, condition: str, cell_type: str = "type_0") -> np.ndarray:
    return ((data.obs["perturbation"] == condition) & (data.obs["cell_type"] == cell_type)).to_numpy()


@pytest.mark.parametrize("condition", ["A", "B", "C", "A+B"])
def test_the_perturbation_behind_a_population_is_found(
    condition: str, model: CFMVC, source: ad.AnnData, data: ad.AnnData, hidden: np.ndarray
) -> None:
    target = data[hidden & of(data, condition)].copy()
    table = tl.rank_perturbations(source, model, target)
    assert set(table["perturbation"]) == {NO_CHANGE, "A", "B", "C", "A+B"}
    first = table.iloc[0]
    assert first["perturbation"] == condition and first["p_best"] > 0.6
    assert first["closed"] > 0.6 and first["closed_low"] > 0.3
    assert (table["low"] <= table["energy"]).all() and (table["energy"] <= table["high"]).all()
    assert table["p_best"].sum() == pytest.approx(1)


def test_nothing_brings_control_cells_closer_to_control_cells(
    model: CFMVC, source: ad.AnnData, data: ad.AnnData, hidden: np.ndarray
) -> None:
    target = data[hidden & of(data, "control")].copy()
    table = tl.rank_perturbations(source, model, target)
    assert table.loc[0, "perturbation"] == NO_CHANGE and table.loc[0, "p_best"] > 0.9
    assert table["closed"].isna().all() and table.loc[1:, "low"].min() > 0


def test_depth_alone_is_no_distance(
    model: CFMVC, source: ad.AnnData, data: ad.AnnData, hidden: np.ndarray, rng: np.random.Generator
) -> None:
    deep = data[hidden & of(data, "control")].copy()
    shallow = deep.copy()
    shallow.X.data = rng.binomial(shallow.X.data.astype(int), 0.4).astype(np.float32)
    for target in (deep, shallow):
        table = tl.rank_perturbations(source, model, target, perturbations=["A"])
        assert table.loc[0, "perturbation"] == NO_CHANGE and table.loc[0, "low"] < 0 < table.loc[0, "high"]


@pytest.mark.parametrize("strength", [0.25, 0.5, 1.5])
def test_a_partial_effect(
    strength: float, model: CFMVC, source: ad.AnnData, predicted_effect: Callable[..., np.ndarray]
) -> None:
    """Cells whose responses are scaled in the simulation are what a part of the effect predicts."""
    scaled = source.copy()
    scaled.obsm["true_response"] = scaled.obsm["true_response"] * strength
    truth, whole = (
        np.mean(np.log1p(true_counterfactual(cells, "A+B")) - np.log1p(true_counterfactual(cells, "control")), axis=0)
        for cells in (scaled, source)
    )
    found = predicted_effect(model, source, perturbation="A+B", strength=strength).mean(axis=0)
    assert np.corrcoef(found, truth)[0, 1] > 0.8
    full = predicted_effect(model, source, perturbation="A+B").mean(axis=0)
    size, true_size = (np.linalg.norm(part) / np.linalg.norm(all_) for part, all_ in ((found, full), (truth, whole)))
    assert abs(size / true_size - 1) < 0.25


def test_cells_along_their_way(model: CFMVC, source: ad.AnnData) -> None:
    path = tl.counterfactual_trajectory(source, model, "A+B", times=5)
    n = source.n_obs
    assert list(path.obs["t"].unique()) == [0, 0.25, 0.5, 0.75, 1] and path.n_obs == 5 * n
    assert (path.X[:n] != source.X).nnz == 0
    end = model.predict_counterfactual(source, perturbation="A+B", seed=0)
    assert (path.X[4 * n :] != end.X).nnz == 0
    z = path.obsm["X_cfmvc_counterfactual"].reshape(5, n, -1)
    np.testing.assert_allclose(z[2] - z[0], 0.5 * path.obsm["X_cfmvc_velocity"][:n], atol=1e-4)
    truth = true_counterfactual(source, "A+B").mean(axis=0) - true_counterfactual(source, "control").mean(axis=0)
    largest = np.argsort(-np.abs(truth))[:20]
    rates = tl.counterfactual_trajectory(source, model, "A+B", times=5, output="normalized").X
    means = rates.reshape(5, n, -1).mean(axis=1)[:, largest] * np.sign(truth[largest])
    assert (np.diff(means, axis=0) > 0).mean() > 0.95


def test_impossible_ways(model: CFMVC, source: ad.AnnData) -> None:
    for asked, words in [
        ({"times": 1}, "two or more"),
        ({"times": [0.0, 2.0]}, r"\[0, 1.5\]"),
        ({"times": [1.0, 0.5]}, "ascending"),
        ({"strength": 0.5}, "strength="),
        ({"batch": "batch_0"}, "batch="),
    ]:
        with pytest.raises(DataError, match=words):
            tl.counterfactual_trajectory(source, model, "A", **asked)
