import numpy as np
import pytest
from anndata import read_h5ad
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV

from cfmvc_scvi.config import SimulationConfig
from cfmvc_scvi.datasets import simulated_perturbation, true_counterfactual
from cfmvc_scvi.errors import DataError, UnknownConditionError


@pytest.fixture(scope="module")
def simulated():
    return simulated_perturbation(n_cells=1500, n_genes=300, seed=3)


def centred(values, groups):
    """Values minus the mean of their group."""
    out = np.array(values, dtype=float)
    for group in np.unique(groups):
        out[groups == group] -= out[groups == group].mean(axis=0)
    return out


def correlation(a, b):
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


def test_contract_of_the_result(simulated):
    assert simulated.shape == (1500, 300)
    assert sparse.isspmatrix_csr(simulated.X) and simulated.X.dtype == np.float32
    assert np.array_equal(simulated.X.data, np.rint(simulated.X.data)) and simulated.X.data.min() >= 1
    assert list(simulated.obs["perturbation"].cat.categories) == ["control", "A", "B", "A+B"]
    assert [simulated.obs[key].nunique() for key in ("cell_type", "batch", "sample")] == [4, 2, 3]
    assert simulated.obs["responder"].dtype == bool
    assert ((simulated.obs["dose"] == 0) == (simulated.obs["perturbation"] == "control")).all()
    assert simulated.obs_names.is_unique and simulated.var_names.is_unique
    assert "spatial" not in simulated.obsm


@pytest.mark.parametrize("n_genes", [500, 1500])
def test_sparsity_and_depth_are_those_of_single_cells(n_genes):
    adata = simulated_perturbation(n_cells=400, n_genes=n_genes)
    depth = np.asarray(adata.X.sum(axis=1)).ravel()
    assert 0.62 < 1 - adata.X.nnz / np.prod(adata.shape) < 0.77
    assert 1500 < np.median(depth) < 2600
    assert 0.3 < np.log(depth).std() < 0.55
    assert np.asarray(adata.X.sum(axis=0)).max() < 0.2 * adata.X.sum()


def test_same_seed_same_data_and_global_generator_untouched(simulated):
    state = np.random.get_state(legacy=False)["state"]["key"].copy()
    again = simulated_perturbation(n_cells=1500, n_genes=300, seed=3)
    other = simulated_perturbation(n_cells=1500, n_genes=300, seed=4)
    assert (again.X != simulated.X).nnz == 0
    assert again.obs.equals(simulated.obs)
    assert (other.X != simulated.X).nnz > 0
    assert np.array_equal(state, np.random.get_state(legacy=False)["state"]["key"])


def test_effects_do_not_depend_on_the_number_of_cells(simulated):
    small = simulated_perturbation(n_cells=200, n_genes=300, seed=3)
    for name, value in simulated.uns["simulation"]["truth"].items():
        assert np.array_equal(value, small.uns["simulation"]["truth"][name]), name
    assert np.array_equal(small.var["true_theta"], simulated.var["true_theta"])


def test_conditions_are_balanced_over_types_samples_and_batches(simulated):
    obs = simulated.obs
    for key in ("cell_type", "sample", "batch"):
        counts = obs.groupby([key, "perturbation"], observed=False).size().unstack()
        shares = counts.div(counts.sum(axis=1), axis=0)
        assert (shares.max() - shares.min()).max() < 0.05, key
    assert obs.groupby(["cell_type", "sample", "batch"], observed=False).size().min() > 10


def test_share_of_responders_and_doses():
    config = SimulationConfig(responder_fraction=0.3)
    adata = simulated_perturbation(n_cells=3000, n_genes=20, doses=(0.1, 1.0, 10.0), combinations=False, config=config)
    assert abs(adata.obs["responder"].mean() - 0.3) < 0.03
    assert sorted(adata.obs["dose"].unique()) == [0, 0.1, 1, 10]
    everyone = simulated_perturbation(n_cells=100, n_genes=20, config=SimulationConfig(responder_fraction=1.0))
    nobody = simulated_perturbation(n_cells=100, n_genes=20, config=SimulationConfig(responder_fraction=0.0))
    assert everyone.obs["responder"].all() and not nobody.obs["responder"].any()


def test_chosen_combinations():
    adata = simulated_perturbation(
        n_cells=400, n_genes=20, perturbations=("A", "B", "C"), combinations=("C+A", "A+B+C"), seed=1
    )
    assert list(adata.obs["perturbation"].cat.categories) == ["control", "A", "B", "C", "A+C", "A+B+C"]


@pytest.mark.parametrize("seed", [0, 1])
def test_who_responds_can_be_told_from_counts_but_not_by_a_shift(seed):
    adata = simulated_perturbation(n_cells=2000, n_genes=500, seed=seed)
    control = adata[adata.obs["perturbation"] == "control"]
    kind = control.obs["cell_type"].astype(str).to_numpy()
    own, other = true_counterfactual(control, "control"), true_counterfactual(control, "A")
    truth = centred(np.log1p(other) - np.log1p(own), kind)

    fold = np.stack([other[kind == k].mean(axis=0) / own[kind == k].mean(axis=0) for k in kind])
    shifted = own * fold
    shifted *= 1e4 / shifted.sum(axis=1, keepdims=True)
    assert correlation(truth, centred(np.log1p(shifted) - np.log1p(own), kind)) < 0.25

    counts = control.X.toarray()
    log_counts = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    features = PCA(20, random_state=0).fit_transform(centred(log_counts, kind))
    train = np.arange(len(kind)) % 2 == 0
    model = RidgeCV(np.logspace(0, 5, 6)).fit(features[train], truth[train])
    assert correlation(model.predict(features[~train]), truth[~train]) > 0.5
    response = centred(control.obsm["true_response"][:, 0], kind)
    model = RidgeCV(np.logspace(0, 5, 6)).fit(features[train], response[train])
    assert correlation(model.predict(features[~train]), response[~train]) > 0.6


def test_without_state_dependence_nobody_can_tell_who_responds():
    adata = simulated_perturbation(n_cells=1500, n_genes=200, config=SimulationConfig(state_dependence=0.0))
    control = adata[adata.obs["perturbation"] == "control"]
    assert abs(correlation(control.obs["responder"], control.obs["state"])) < 0.1
    dependent = simulated_perturbation(n_cells=1500, n_genes=200).obs
    assert correlation(dependent["responder"], dependent["state"]) > 0.6


def test_related_cell_types_respond_more_alike():
    adata = simulated_perturbation(n_cells=800, n_genes=500, perturbations=tuple("ABCDEF"), combinations=False)
    effect = adata.uns["simulation"]["truth"]["effect"]
    alike = np.mean([correlation(e[0], e[1]) + correlation(e[2], e[3]) for e in effect]) / 2
    apart = np.mean([correlation(e[0], e[2]) + correlation(e[1], e[3]) for e in effect]) / 2
    assert 1 > alike > apart + 0.05 and apart > 0.3


def test_niche_of_spatial_data_changes_the_response():
    adata = simulated_perturbation(n_cells=1500, n_genes=60, spatial=True)
    responders = adata[adata.obs["responder"]]
    niche = responders.obsm["true_state"][:, 3]
    assert adata.obsm["spatial"].shape == (1500, 2)
    assert correlation(np.log(responders.obsm["true_response"][:, 0]), niche) > 0.6
    assert adata.obs["region"].nunique() == 4
    types = adata.obs.groupby(["region", "cell_type"], observed=False).size().unstack()
    shares = types.div(types.sum(axis=1), axis=0)
    assert (shares.max() - shares.min()).max() > 0.2  # regions differ in composition
    extent = adata.obs["sample"].cat.codes.to_numpy() * 1.5 * np.sqrt(500)
    assert np.all((adata.obsm["spatial"][:, 0] - extent >= 0) & (adata.obsm["spatial"][:, 0] - extent <= np.sqrt(500)))


def test_truth_survives_a_file(simulated, tmp_path):
    simulated.write_h5ad(tmp_path / "simulated.h5ad")
    read = read_h5ad(tmp_path / "simulated.h5ad")
    assert np.array_equal(true_counterfactual(read, "A+B"), true_counterfactual(simulated, "A+B"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_cells": 0}, "at least 1"),
        ({"n_samples": 0}, "at least 1"),
        ({"perturbations": ()}, "at least one perturbation"),
        ({"perturbations": ("A", "A")}, "twice"),
        ({"perturbations": ("A+B",)}, "separator"),
        ({"perturbations": ("control",)}, "control"),
        ({"doses": (0.0,)}, "doses"),
        ({"doses": ()}, "doses"),
        ({"doses": (1.0, float("nan"))}, "doses"),
        ({"combinations": ("A",)}, "two parts"),
        ({"n_cells": 20}, "raise n_cells"),
        ({"config": SimulationConfig(responder_fraction=1.2)}, "responder_fraction"),
        ({"config": SimulationConfig(state_dependence=-0.1)}, "state_dependence"),
        ({"config": SimulationConfig(depth=0.0)}, "depth"),
    ],
)
def test_impossible_requests(arguments, message):
    with pytest.raises(DataError, match=message):
        simulated_perturbation(**({"n_genes": 20} | arguments))


def test_unknown_part_of_a_combination():
    with pytest.raises(UnknownConditionError, match="Z"):
        simulated_perturbation(n_genes=20, combinations=("A+Z",))


def test_one_cell_type_is_enough():
    adata = simulated_perturbation(n_cells=60, n_genes=20, n_cell_types=1, seed=0)
    assert adata.obs["cell_type"].nunique() == 1
