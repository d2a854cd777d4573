"""What every counterfactual obeys, whatever the weights of the flow."""

from collections.abc import Callable
from functools import partial

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cfmvc_scvi import CFMVC
from cfmvc_scvi.config import ObservationConfig, SolverConfig
from cfmvc_scvi.model.plan import Observation
from cfmvc_scvi.model.torch_networks import TorchNetworks
from cfmvc_scvi.model.transport import ConditionArrays, transport

relaxed = settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def same(first: sp.spmatrix, second: sp.spmatrix) -> bool:
    return first.shape == second.shape and (sp.csr_matrix(first) != sp.csr_matrix(second)).nnz == 0


def mean_log1p(counts: sp.spmatrix) -> np.ndarray:
    dense = counts.toarray()
    return np.log1p(1e4 * dense / np.maximum(dense.sum(axis=1, keepdims=True), 1)).mean(axis=0)


def controls(data: ad.AnnData) -> ad.AnnData:
    return data[data.obs["perturbation"] == "control"].copy()


def test_a_cell_under_its_own_condition_comes_back_bit_for_bit(law_model: CFMVC, law_data: ad.AnnData) -> None:
    obs = law_data.obs
    for perturbation, dose, batch in [("control", 0.0, "batch_1"), ("A", 2.0, "batch_0"), ("A+B", 0.5, "batch_1")]:
        mask = (obs["perturbation"] == perturbation) & (obs["dose"] == dose) & (obs["batch"] == batch)
        cells = law_data[mask & (obs["cell_type"] == "type_1")].copy()
        asked = {"perturbation": perturbation, "dose": dose, "batch": batch, "labels": "type_1"}
        for named in (asked, {"labels": "type_1"}, {"batch": batch}, {}):
            result = law_model.predict_counterfactual(cells, **named, seed=1)
            assert same(result.X, cells.X), named
            assert np.array_equal(result.obsm["X_cfmvc"], result.obsm["X_cfmvc_counterfactual"])


def test_only_the_cells_that_change_change(law_model: CFMVC, law_data: ad.AnnData) -> None:
    result = law_model.predict_counterfactual(law_data.copy(), perturbation="B", dose=0.5, seed=1)
    own = ((law_data.obs["perturbation"] == "B") & (law_data.obs["dose"] == 0.5)).to_numpy()
    assert same(result.X[own], law_data.X[own])
    assert not same(result.X[~own], law_data.X[~own])


@pytest.mark.parametrize("output", ["counts", "rate"])
def test_no_strength_is_the_very_cell_and_full_strength_the_counterfactual(
    law_model: CFMVC, law_data: ad.AnnData, output: str
) -> None:
    cells = law_data[:80].copy()
    asked = {"output": output, "seed": 3}
    own, default = (law_model.predict_counterfactual(cells, **asked, **x) for x in ({}, {"perturbation": "A+B"}))
    none, full = (law_model.predict_counterfactual(cells, perturbation="A+B", strength=s, **asked) for s in (0.0, 1.0))
    assert same(none.X, own.X) and (output != "counts" or same(none.X, cells.X))
    assert np.array_equal(none.obsm["X_cfmvc"], none.obsm["X_cfmvc_counterfactual"])
    assert same(full.X, default.X) and not same(full.X, none.X)
    assert np.array_equal(full.obsm["X_cfmvc_counterfactual"], default.obsm["X_cfmvc_counterfactual"])
    assert set(none.obs["target_condition"]) == {"A@1+B@1"} and none.uns["cfmvc"]["arguments"]["strength"] == 0


def test_latents_at_a_strength_lie_on_the_line(law_model: CFMVC, law_data: ad.AnnData) -> None:
    cells = controls(law_data)[:40].copy()
    asked = {"perturbation": "A", "dose": 2.0, "output": "latent"}
    start, end = (
        law_model.predict_counterfactual(cells, **asked, strength=s).obsm["X_cfmvc_counterfactual"] for s in (0.0, 1.0)
    )
    for strength in (0.3, 1.5):
        found = law_model.predict_counterfactual(cells, **asked, strength=strength).obsm["X_cfmvc_counterfactual"]
        np.testing.assert_allclose(found, start + strength * (end - start), atol=1e-4)


@given(data=st.data())
@relaxed
def test_neither_order_nor_companions_nor_batch_size_matter(
    law_model: CFMVC, law_data: ad.AnnData, data: st.DataObject
) -> None:
    asked = {"perturbation": "A", "dose": 1.0, "seed": 2}
    cells = law_data[law_data.obs["dose"] != 2.0][:80].copy()
    everything = law_model.predict_counterfactual(cells, **asked).X
    rows = np.array(data.draw(st.lists(st.integers(0, cells.n_obs - 1), min_size=1, max_size=40, unique=True)))
    batch_size = data.draw(st.integers(1, 50))
    part = law_model.predict_counterfactual(cells[rows].copy(), **asked, batch_size=batch_size)
    assert list(part.obs_names) == list(cells.obs_names[rows])
    assert same(part.X, everything[rows])
    assert same(law_model.predict_counterfactual(cells, rows, **asked).X, everything[rows])


def test_draws_are_numbered_and_the_first_is_the_only_one(law_model: CFMVC, law_data: ad.AnnData) -> None:
    cells = controls(law_data)[:20].copy()
    once, thrice = (law_model.predict_counterfactual(cells, perturbation="A", n_samples=n, seed=3) for n in (1, 3))
    assert same(thrice.X[:20], once.X)
    assert not same(thrice.X[20:40], once.X) and not same(thrice.X[20:40], thrice.X[40:])
    assert list(thrice.obs["draw"].value_counts()) == [20, 20, 20] and thrice.obs_names.is_unique


def test_permuted_genes_permute_the_prediction(law_model: CFMVC, law_data: ad.AnnData) -> None:
    cells = controls(law_data)[:30].copy()
    shuffled = cells[:, np.random.default_rng(0).permutation(cells.n_vars)].copy()
    first, second = (law_model.predict_counterfactual(x, perturbation="A+B", seed=4) for x in (cells, shuffled))
    assert same(first.X, second[:, first.var_names].X)


def test_the_seed_decides(law_model: CFMVC, law_data: ad.AnnData) -> None:
    cells = controls(law_data)[:30].copy()
    first, again, other = (law_model.predict_counterfactual(cells, perturbation="A", seed=s).X for s in (5, 5, 6))
    assert same(first, again) and not same(first, other)
    drawn = law_model.predict_counterfactual(cells, perturbation="A")
    assert same(
        drawn.X,
        law_model.predict_counterfactual(cells, perturbation="A", seed=drawn.uns["cfmvc"]["arguments"]["seed"]).X,
    )


def test_the_velocity_of_control_cells_is_the_base(law_model: CFMVC, law_data: ad.AnnData) -> None:
    flow, n = law_model.module.flow, law_model.module.n_intrinsic
    u = law_model.module.standardise(torch.as_tensor(law_model.get_latent_representation()))
    control = torch.zeros(len(u), len(law_model.vocabulary.perturbations))
    context = torch.randn(len(u), n)
    with torch.no_grad():
        for t in (0.0, 0.3, 1.0):
            velocity = flow(u, torch.tensor(t), control, context, guidance_scale=3.0)
            assert torch.equal(velocity, flow.base(u, torch.tensor(t), context))


@pytest.mark.parametrize(
    ("perturbation", "dose", "strength"), [("A", 2.0, 1.0), ("A+B", 1.0, 1.0), ("A", 100.0, 1.0), ("A", 2.0, 0.4)]
)
@pytest.mark.parametrize("heterogeneity", [0.0, 1.0])
def test_predicted_reference_cells_meet_the_level(
    law_model: CFMVC,
    law_data: ad.AnnData,
    perturbation: str,
    dose: float,
    strength: float,
    heterogeneity: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if perturbation == "A+B":  # the sum of two effects need not be a composition: it asks for another depth
        free = partial(Observation, config=ObservationConfig(match_depth_change=1.0))
        monkeypatch.setattr("cfmvc_scvi.model.kept.Observation", free)
        monkeypatch.setattr(law_model, "_kept", None)
    cells = controls(law_data)
    asked = {"perturbation": perturbation, "dose": dose}
    how = {"heterogeneity": heterogeneity, "strength": strength, "seed": 7}
    result = law_model.predict_counterfactual(cells, **asked, **how)
    effect = law_model.get_effect(**asked).pivot(index="context", columns="gene", values="delta")[cells.var_names]
    for context in effect.index:
        mine = (cells.obs["cell_type"] == context).to_numpy()
        goal = np.maximum(mean_log1p(cells.X[mine]) + strength * effect.loc[context].to_numpy(), 0)
        assert np.median(np.abs(mean_log1p(result.X[mine]) - goal)) < (0.03 if perturbation == "A+B" else 0.02)


@pytest.mark.parametrize("heterogeneity", [0.0, 1.0])
def test_depth_moves_less_than_the_goal_asks_for(
    law_model: CFMVC, law_data: ad.AnnData, heterogeneity: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = controls(law_data)
    changes = []
    for bound in (ObservationConfig().match_depth_change, 5.0):
        bounded = partial(Observation, config=ObservationConfig(match_depth_change=bound))
        monkeypatch.setattr("cfmvc_scvi.model.kept.Observation", bounded)
        monkeypatch.setattr(law_model, "_kept", None)
        moved = law_model.predict_counterfactual(cells, perturbation="A+B", heterogeneity=heterogeneity, seed=7).X
        changes.append(np.log(np.asarray(moved.sum(axis=1)) / np.asarray(cells.X.sum(axis=1))).mean())
    assert abs(changes[0]) < 0.8 * abs(changes[1])


def test_genes_that_are_never_seen_stay_so(law_model: CFMVC, law_data: ad.AnnData) -> None:
    for output in ("counts", "rate", "normalized"):
        result = law_model.predict_counterfactual(controls(law_data), perturbation="A+B", output=output, seed=8).X
        assert np.isfinite(result.data if sp.issparse(result) else result).all() and result.min() >= 0
        assert result[:, -1].mean() < 1e-3
    assert law_model.sample_cells("A", n_cells=50, seed=0).X[:, -1].mean() < 1e-3


def test_without_heterogeneity_the_flow_has_no_say_in_counts(
    law_model: CFMVC, scrambled: Callable[[int], CFMVC], law_data: ad.AnnData
) -> None:
    cells = controls(law_data)
    asked = {"perturbation": "A", "dose": 2.0, "seed": 9}
    one, other = (
        model.predict_counterfactual(cells, **asked, heterogeneity=0.0) for model in (law_model, scrambled(1))
    )
    assert same(one.X, other.X)
    assert not np.allclose(one.obsm["X_cfmvc_counterfactual"], other.obsm["X_cfmvc_counterfactual"])
    one, other = (model.predict_counterfactual(cells, **asked) for model in (law_model, scrambled(1)))
    assert not same(one.X, other.X)


def test_saving_loading_and_train_mode_change_nothing(law_model: CFMVC, law_data: ad.AnnData, tmp_path: object) -> None:
    cells = controls(law_data)[:40].copy()
    asked = {"perturbation": "A+B", "dose": 0.5, "seed": 10}
    before = law_model.predict_counterfactual(cells, **asked)
    law_model.module.train()
    assert same(law_model.predict_counterfactual(cells, **asked).X, before.X)
    law_model.save(f"{tmp_path}/model")
    for adata in (law_model.adata.copy(), False):
        loaded = CFMVC.load(f"{tmp_path}/model", adata=adata, accelerator="cpu")
        after = loaded.predict_counterfactual(cells, **asked)
        assert same(after.X, before.X)
        assert np.array_equal(after.obsm["X_cfmvc_counterfactual"], before.obsm["X_cfmvc_counterfactual"])


def test_predicting_leaves_model_and_data_alone(law_model: CFMVC, law_data: ad.AnnData) -> None:
    weights = {key: value.clone() for key, value in law_model.module.state_dict().items()}
    cells, before = law_data.copy(), law_data.copy()
    law_model.predict_counterfactual(cells, perturbation="A", seed=0)
    law_model.sample_cells("A", n_cells=5, seed=0)
    assert all(torch.equal(value, weights[key]) for key, value in law_model.module.state_dict().items())
    assert same(cells.X, before.X) and not cells.layers
    assert list(cells.obs[before.obs.columns].compare(before.obs)) == []


def test_expected_counts_are_the_normalized_ones_at_the_cells_depth(law_model: CFMVC, law_data: ad.AnnData) -> None:
    cells = controls(law_data)[:25].copy()
    rate, normalized = (
        law_model.predict_counterfactual(cells, perturbation="A", output=output, seed=0).X
        for output in ("rate", "normalized")
    )
    np.testing.assert_allclose(normalized.sum(axis=1), 1e4, rtol=1e-5)
    np.testing.assert_allclose(rate, normalized * np.asarray(cells.X.sum(axis=1)) / 1e4, rtol=1e-5)


def test_no_guidance_is_the_base_and_latent_output_has_no_counts(law_model: CFMVC, law_data: ad.AnnData) -> None:
    cells = controls(law_data)[:25].copy()
    asked = {"perturbation": "A", "output": "latent", "seed": 0}
    plain, strong = (law_model.predict_counterfactual(cells, **asked, guidance_scale=w) for w in (1.0, 3.0))
    assert plain.X is None and plain.shape == cells.shape
    assert not np.allclose(plain.obsm["X_cfmvc_counterfactual"], strong.obsm["X_cfmvc_counterfactual"])


@pytest.mark.parametrize("output", ["counts", "normalized", "latent"])
def test_new_cells_depend_on_seed_and_name_alone(law_model: CFMVC, output: str) -> None:
    asked = {"perturbation": "A", "dose": 2.0, "output": output, "labels": "type_0"}
    few, many, other = (law_model.sample_cells(n_cells=n, seed=s, **asked) for n, s in [(20, 1), (60, 1), (20, 2)])
    assert list(few.obs_names) == list(many.obs_names[:20])
    assert few.obs.astype(str).equals(many.obs[:20].astype(str))
    assert np.array_equal(few.obsm["X_cfmvc_counterfactual"], many.obsm["X_cfmvc_counterfactual"][:20])
    assert not np.allclose(few.obsm["X_cfmvc_counterfactual"], other.obsm["X_cfmvc_counterfactual"])
    if output == "latent":
        assert few.X is None
    else:
        assert (few.X != many.X[:20]).sum() == 0 and (few.X != other.X).sum() > 0


@pytest.mark.parametrize("perturbation", ["control", "A+B"])
def test_new_cells_meet_the_level(law_model: CFMVC, law_data: ad.AnnData, perturbation: str) -> None:
    cells = controls(law_data)
    effect = law_model.get_effect(perturbation, dose=2.0).pivot(index="context", columns="gene", values="delta")
    for context, batch in [("type_0", None), ("type_1", "batch_1")]:
        asked = {"labels": context, "batch": batch, "dose": 2.0}
        new = law_model.sample_cells(perturbation, n_cells=400, **asked, seed=11)
        mine = (cells.obs["cell_type"] == context) & ((cells.obs["batch"] == batch) if batch else True)
        goal = np.maximum(mean_log1p(cells.X[mine.to_numpy()]) + effect.loc[context][cells.var_names].to_numpy(), 0)
        assert np.median(np.abs(mean_log1p(new.X) - goal)) < 0.12  # the random flow makes cells wildly different
        assert set(new.obs["target_context"]) == {context}
        assert set(new.obs["batch"]) <= ({batch} if batch else {"batch_0", "batch_1"})


@pytest.mark.parametrize(("solver", "tolerance"), [(SolverConfig(), 1e-2), (SolverConfig("rk4", 20), 1e-4)])
def test_there_and_back_returns_the_latent(law_model: CFMVC, solver: SolverConfig, tolerance: float) -> None:
    u, offset, context = np.random.default_rng(0).standard_normal((3, 50, 6))
    zero = np.zeros((50, 2))
    control = ConditionArrays(zero, context, 0 * offset)
    perturbed = ConditionArrays(zero + [0.5, 2.0], context, offset)
    solve = partial(TorchNetworks(law_model.module).solve, solver=solver)
    away, _ = transport(solve, u, control, perturbed, source=law_model.source_)
    back, _ = transport(solve, away, perturbed, control, source=law_model.source_)
    assert np.linalg.norm(back - u) < tolerance * np.linalg.norm(away - u)
