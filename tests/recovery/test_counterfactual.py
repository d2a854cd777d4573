"""Counterfactuals that only a simulation knows are found again."""

from collections.abc import Callable
from functools import partial
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch

from cfmvc_scvi import CFMVC
from cfmvc_scvi.config import SolverConfig
from cfmvc_scvi.datasets import simulated_perturbation, true_counterfactual
from cfmvc_scvi.metrics import cell_effect_correlation
from cfmvc_scvi.model.torch_networks import TorchNetworks
from cfmvc_scvi.model.transport import ConditionArrays, transport

QUICK = {"max_epochs": {"representation": 20, "flow": 6}}
LEVELS = {"max_epochs": {"representation": 3, "flow": 1}}  # enough where only the levels are looked at


def controls(data: ad.AnnData) -> ad.AnnData:
    return data[data.obs["perturbation"] == "control"].copy()


def log_means(counts: Any) -> np.ndarray:
    dense = np.asarray(counts.todense() if hasattr(counts, "todense") else counts, dtype=float)
    return np.log1p(1e4 * dense / np.maximum(dense.sum(axis=1, keepdims=True), 1)).mean(axis=0)


def shifted(model: CFMVC, cells: ad.AnnData, perturbation: str) -> np.ndarray:
    """Effect on each cell of the mean latent shift of its cell type, decoded."""
    moved = model.predict_counterfactual(cells, perturbation=perturbation, output="latent", seed=0)
    z = torch.as_tensor(model.get_latent_representation(cells, part="both"))
    n = model.module.n_intrinsic
    delta = moved.obsm["X_cfmvc_counterfactual"] - moved.obsm["X_cfmvc"]
    types = cells.obs["cell_type"].to_numpy()
    shift = np.stack([delta[types == name].mean(axis=0) for name in types])
    data = model._validate_anndata(cells)
    (tensors,) = model._make_data_loader(data, batch_size=cells.n_obs)
    with torch.inference_mode():
        before = model.module.decode_fractions(z, tensors).numpy()
        z = torch.cat([z[:, :n] + torch.as_tensor(shift), z[:, n:]], dim=1)
        after = model.module.decode_fractions(z, tensors).numpy()
    return np.log1p(1e4 * after) - np.log1p(1e4 * before)


@pytest.fixture(scope="module")
def data() -> ad.AnnData:
    """Held out from it in training: every A+B."""
    return simulated_perturbation(1500, 300, combinations=("A+B",), seed=1)


@pytest.fixture(scope="module")
def model(data: ad.AnnData, fitted: Callable[..., CFMVC]) -> CFMVC:
    return fitted(data[data.obs["perturbation"] != "A+B"], training=QUICK)


def test_the_effect_on_single_cells(
    model: CFMVC, data: ad.AnnData, true_effect: Callable[..., np.ndarray], predicted_effect: Callable[..., np.ndarray]
) -> None:
    cells = controls(data)
    truth, types = true_effect(cells, "B"), cells.obs["cell_type"]
    effect = predicted_effect(model, cells, perturbation="B")
    found = cell_effect_correlation(effect, truth, types)
    by_shift = cell_effect_correlation(shifted(model, cells, "B"), truth, types)
    assert found > 0.33 and by_shift < min(0.25, found - 0.1)
    error, of_shift = (np.linalg.norm(x - truth) / np.linalg.norm(truth) for x in (effect, shifted(model, cells, "B")))
    assert error < min(0.9, of_shift - 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["control", "noise"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_effect_on_single_cells_with_default_training(
    source: str,
    seed: int,
    fitted: Callable[..., CFMVC],
    true_effect: Callable[..., np.ndarray],
    predicted_effect: Callable[..., np.ndarray],
) -> None:
    data = simulated_perturbation(2000, combinations=False, seed=seed)
    model, cells = fitted(data, source=source), controls(data)
    for perturbation in ("A", "B"):
        truth, types = true_effect(cells, perturbation), cells.obs["cell_type"]
        found = cell_effect_correlation(predicted_effect(model, cells, perturbation=perturbation), truth, types)
        assert found > (0.35 if source == "control" else 0.18)  # a flow from noise knows single cells less well
        assert cell_effect_correlation(shifted(model, cells, perturbation), truth, types) < 0.25


def test_contexts_that_were_held_out(fitted: Callable[..., CFMVC]) -> None:
    """In the mean over cell types, the effect in an unseen one is nearer to the truth than the mean of the others'."""
    data = simulated_perturbation(3000, 300, combinations=("A+B",), seed=1)  # with fewer cells, noise decides
    types, found, simple = list(data.obs["cell_type"].cat.categories), [], []
    seen = data[data.obs["perturbation"].isin(["control", "A"])]
    of = {name: seen[seen.obs["cell_type"] == name] for name in types}
    shift = {name: log_means(x[x.obs["perturbation"] == "A"].X) - log_means(controls(x).X) for name, x in of.items()}
    for name in types:
        hidden = (seen.obs["cell_type"] == name) & (seen.obs["perturbation"] == "A")
        model, cells = fitted(seen[~hidden], training=LEVELS), controls(of[name])
        result = model.predict_counterfactual(cells, perturbation="A", seed=0)
        truth = log_means(true_counterfactual(cells, "A")) - log_means(true_counterfactual(cells, "control"))
        others = np.mean([shift[other] for other in types if other != name], axis=0)
        found.append(np.corrcoef(log_means(result.X) - log_means(cells.X), truth)[0, 1])
        simple.append(np.corrcoef(others, truth)[0, 1])
        assert result.uns["cfmvc"]["n_conditions_unseen"] == 1
    assert np.mean(found) > max(0.7, np.mean(simple)), (found, simple)


def test_a_combination_that_was_never_seen(
    model: CFMVC, data: ad.AnnData, true_effect: Callable[..., np.ndarray]
) -> None:
    cells = controls(data)
    result = model.predict_counterfactual(cells, perturbation="B+A", seed=0)
    truth = true_effect(cells, "A+B").mean(axis=0)
    predicted = log_means(result.X) - log_means(cells.X)
    assert np.corrcoef(predicted, truth)[0, 1] > 0.8
    new = model.sample_cells("A+B", n_cells=400, labels="type_0", seed=0)
    observed = data[(data.obs["perturbation"] == "A+B") & (data.obs["cell_type"] == "type_0")].X
    assert np.corrcoef(log_means(new.X), log_means(observed))[0, 1] > 0.95


def test_another_cell_type_looks_like_it(model: CFMVC, data: ad.AnnData) -> None:
    cells = controls(data)
    of = {name: cells[cells.obs["cell_type"] == name].copy() for name in ("type_0", "type_2")}
    moved = model.predict_counterfactual(of["type_0"], labels="type_2", seed=0)
    before, aim, after = log_means(of["type_0"].X), log_means(of["type_2"].X), log_means(moved.X)
    assert np.corrcoef(after, aim)[0, 1] > max(0.99, np.corrcoef(before, aim)[0, 1])
    assert set(moved.obs["target_context"]) == {"type_2"}


def test_another_batch_moves_the_genes_of_the_batch(model: CFMVC, data: ad.AnnData) -> None:
    cells = controls(data)
    cells = cells[cells.obs["batch"] == "batch_0"].copy()
    moved = model.predict_counterfactual(cells, batch="batch_1", seed=0)
    truth = np.subtract(*data.uns["simulation"]["truth"]["batch_profile"][::-1])
    change, level = log_means(moved.X) - log_means(cells.X), log_means(cells.X)
    seen = level > 0.5
    assert np.corrcoef(change[seen], truth[seen])[0, 1] > 0.4
    back = model.predict_counterfactual(cells, batch="batch_0", seed=0)
    assert (back.X != cells.X).nnz == 0


@pytest.mark.parametrize("source", ["control", pytest.param("noise", marks=pytest.mark.slow)])
def test_there_and_back_along_a_fitted_flow(
    source: str, data: ad.AnnData, model: CFMVC, fitted: Callable[..., CFMVC]
) -> None:
    chosen = model if source == "control" else fitted(data, training=QUICK, source="noise")
    cells = controls(data)
    u = chosen.module.standardise(torch.as_tensor(chosen.get_latent_representation(cells))).double().numpy()
    zero = np.zeros((len(u), 2))
    control = ConditionArrays(zero, np.zeros_like(u), np.zeros_like(u))
    perturbed = ConditionArrays(zero + [1.0, 0.0], np.zeros_like(u), np.full_like(u, 0.2))
    for solver, tolerance in [(SolverConfig(), 1e-2), (SolverConfig("rk4", 20), 1e-4)]:
        solve = partial(TorchNetworks(chosen.module).solve, solver=solver)
        away, _ = transport(solve, u, control, perturbed, source=source)
        back, _ = transport(solve, away, perturbed, control, source=source)
        assert np.linalg.norm(back - u) < tolerance * np.linalg.norm(away - u)


def test_doses_between_and_beyond_those_seen(fitted: Callable[..., CFMVC]) -> None:
    data = simulated_perturbation(900, 120, n_cell_types=2, perturbations=("A",), doses=(0.5, 4.0), seed=2)
    model, cells = fitted(data, {"dose_key": "dose"}, LEVELS), controls(data)
    results = {
        dose: model.predict_counterfactual(cells, perturbation="A", dose=dose, seed=0) for dose in (0.5, 1.5, 4, 9)
    }
    change = {dose: log_means(result.X) - log_means(cells.X) for dose, result in results.items()}
    low, high = np.minimum(change[0.5], change[4]), np.maximum(change[0.5], change[4])
    wide = high - low > 0.2
    assert ((change[1.5] > low - 0.02) & (change[1.5] < high + 0.02))[wide].mean() > 0.95
    assert np.abs(change[9] - change[4]).max() < 0.02
    extrapolated = [result.uns["cfmvc"]["n_conditions_extrapolated"] for result in results.values()]
    assert extrapolated == [0, 0, 0, 2]
    unseen = [result.uns["cfmvc"]["n_conditions_unseen"] for result in results.values()]
    assert unseen == [0, 2, 0, 2]


def test_cells_in_space(fitted: Callable[..., CFMVC]) -> None:
    data = simulated_perturbation(500, 80, n_cell_types=2, perturbations=("A",), spatial=True, seed=0)
    model, cells = fitted(data, {"spatial_key": "spatial"}, LEVELS), controls(data)
    result = model.predict_counterfactual(data.copy(), perturbation="A", seed=0)
    control = (data.obs["perturbation"] == "control").to_numpy()
    truth = log_means(true_counterfactual(cells, "A")) - log_means(true_counterfactual(cells, "control"))
    assert np.corrcoef(log_means(result.X[control]) - log_means(cells.X), truth)[0, 1] > 0.8
    assert model.sample_cells("A", n_cells=5, seed=0).n_obs == 5
