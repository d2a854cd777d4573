import anndata as ad
import numpy as np
import pytest

from cfmvc_scvi.config import SimulationConfig
from cfmvc_scvi.datasets import simulated_perturbation, true_counterfactual
from cfmvc_scvi.errors import DataError, UnknownConditionError


@pytest.fixture(scope="module")
def simulated():
    return simulated_perturbation(n_cells=600, n_genes=80, doses=(0.5, 2.0), seed=5)


@pytest.fixture(scope="module")
def synergistic():
    return simulated_perturbation(
        n_cells=200, n_genes=80, combinations=False, config=SimulationConfig(interaction=1.0), seed=5
    )


def log_effect(adata, perturbation, dose=1.0):
    """Log ratio to control, its mean over genes removed: free of the normalisation of a cell."""
    ratio = np.log(true_counterfactual(adata, perturbation, dose) / true_counterfactual(adata, "control"))
    return ratio - ratio.mean(axis=1, keepdims=True)


def test_rows_are_counts_per_10k(simulated):
    truth = true_counterfactual(simulated, "A")
    assert truth.shape == simulated.shape and truth.min() > 0
    np.testing.assert_allclose(truth.sum(axis=1), 1e4)


def test_own_condition_is_what_the_counts_were_drawn_from(simulated):
    own = true_counterfactual(simulated)
    counts = simulated.X.toarray()
    mean = counts.sum(axis=1, keepdims=True) * own / 1e4
    spread = mean + mean**2 / simulated.var["true_theta"].to_numpy()
    z = (counts - mean).sum(axis=0) / np.sqrt(spread.sum(axis=0))
    assert 0.7 < z.std() < 1.3 and abs(z.mean()) < 0.3
    for condition in ("A", "A+B"):
        rows = (simulated.obs["perturbation"] == condition).to_numpy() & (simulated.obs["dose"] == 2.0).to_numpy()
        assert np.array_equal(own[rows], true_counterfactual(simulated[rows], condition, dose=2.0))


def test_other_condition_does_not_fit_the_counts(simulated):
    perturbed = simulated[simulated.obs["perturbation"] == "A"]
    counts = perturbed.X.toarray()
    depth = counts.sum(axis=1, keepdims=True)

    def misfit(truth):
        mean = depth * truth / 1e4
        return ((counts - mean) ** 2 / (mean + mean**2 / perturbed.var["true_theta"].to_numpy())).mean()

    assert misfit(true_counterfactual(perturbed)) < 1.1 < misfit(true_counterfactual(perturbed, "control"))


def test_non_responders_do_not_change_at_all_and_responders_do(simulated):
    change = np.abs(true_counterfactual(simulated, "A+B") - true_counterfactual(simulated, "control")).max(axis=1)
    responder = simulated.obs["responder"].to_numpy()
    assert (change[~responder] == 0).all()
    assert (change[responder] > 0).all()


def test_effects_add_in_log_rate_without_interaction(simulated):
    parts = log_effect(simulated, "A") + log_effect(simulated, "B")
    np.testing.assert_allclose(log_effect(simulated, "A+B"), parts, atol=1e-9)


def test_interaction_acts_on_combinations_only(synergistic):
    plain = simulated_perturbation(n_cells=200, n_genes=80, combinations=False, seed=5)
    np.testing.assert_array_equal(log_effect(synergistic, "A"), log_effect(plain, "A"))
    truth = synergistic.uns["simulation"]["truth"]
    saturation = 1 / (1 + np.asarray(truth["half_dose"]) ** truth["hill"])
    strength = saturation * synergistic.obsm["true_response"]
    expected = strength.prod(axis=1, keepdims=True) * truth["interaction"].sum(axis=0)
    extra = log_effect(synergistic, "A+B") - log_effect(synergistic, "A") - log_effect(synergistic, "B")
    np.testing.assert_allclose(extra, expected - expected.mean(axis=1, keepdims=True), atol=1e-9)
    assert np.abs(extra).max() > 0.1


def test_dose_follows_the_hill_curve(simulated):
    truth = simulated.uns["simulation"]["truth"]
    half = float(truth["half_dose"][0])
    np.testing.assert_array_equal(
        true_counterfactual(simulated, "A", dose=0.0), true_counterfactual(simulated, "control")
    )
    np.testing.assert_allclose(log_effect(simulated, "A", half), 0.5 * log_effect(simulated, "A", 1e12), atol=1e-6)
    power = 3.0 ** truth["hill"]
    np.testing.assert_allclose(
        log_effect(simulated, "A", 3 * half), 2 * power / (1 + power) * log_effect(simulated, "A", half), atol=1e-9
    )


def test_default_dose_is_the_highest(simulated):
    np.testing.assert_array_equal(true_counterfactual(simulated, "B"), true_counterfactual(simulated, "B", dose=2.0))


def test_order_of_parts_cells_and_genes_changes_nothing_else(simulated, rng):
    whole = true_counterfactual(simulated, "A+B")
    np.testing.assert_array_equal(true_counterfactual(simulated, "B+A"), whole)
    cells, genes = rng.permutation(600)[:50], rng.permutation(80)[:30]
    part = true_counterfactual(simulated[cells][:, genes].copy(), "A+B")
    np.testing.assert_allclose(part, whole[np.ix_(cells, genes)], rtol=1e-12)


def test_data_stay_as_they_are(simulated):
    before = simulated.copy()
    true_counterfactual(simulated, "A")
    assert before.obs.equals(simulated.obs) and list(before.obsm) == list(simulated.obsm)
    np.testing.assert_array_equal(before.obsm["true_state"], simulated.obsm["true_state"])


def test_no_truth_in_other_data(tiny_adata, simulated):
    with pytest.raises(DataError, match=r"uns\['simulation'\].*obsm\['true_state'\]"):
        true_counterfactual(tiny_adata, "A")
    stripped = simulated.copy()
    del stripped.obs["batch"]
    with pytest.raises(DataError, match=r"obs\['batch'\]"):
        true_counterfactual(stripped, "A")


def test_names_that_were_not_simulated(simulated):
    with pytest.raises(UnknownConditionError, match="Z"):
        true_counterfactual(simulated, "A+Z")
    renamed = simulated.copy()
    renamed.var_names = [f"other_{name}" for name in renamed.var_names]
    with pytest.raises(DataError, match="80 genes were not simulated, first 'other_gene_0'"):
        true_counterfactual(renamed, "A")
    relabelled = simulated.copy()
    relabelled.obs["cell_type"] = "unheard of"
    with pytest.raises(DataError, match=r"600 cells have a label in obs\['cell_type'\]"):
        true_counterfactual(relabelled, "A")


@pytest.mark.parametrize("dose", [-1.0, float("nan"), float("inf")])
def test_impossible_dose(simulated, dose):
    with pytest.raises(DataError, match="dose must be"):
        true_counterfactual(simulated, "A", dose=dose)


def test_concatenated_parts_keep_the_truth(simulated):
    parts = [simulated[:300], simulated[300:]]
    joined = ad.concat(parts, uns_merge="same")
    np.testing.assert_array_equal(true_counterfactual(joined, "A"), true_counterfactual(simulated, "A"))
