"""A perturbed region of a tissue, whose neighbours were planted to follow."""

from collections.abc import Callable

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.optimize import curve_fit
from scipy.spatial import cKDTree

from cfmvc_scvi import CFMVC, pl, tl
from cfmvc_scvi.errors import DataError, NonFiniteError, UnknownConditionError
from cfmvc_scvi.metrics import log_normalize
from cfmvc_scvi.shift import NicheResponse

N, GAIN = 600, 0.9
SETUP = {"batch_key": "slice", "spatial_key": "spatial"}
QUICK = {"max_epochs": {"representation": 15, "flow": 2}}


def reach(place: np.ndarray, held: np.ndarray, gain: float = GAIN, radius: float = 2.0) -> np.ndarray:
    """Cells take over a part of the mean of all cells within a radius: not the neighbours that the model sees."""
    near = cKDTree(place).sparse_distance_matrix(cKDTree(place), radius, output_type="coo_matrix").tocsr()
    near.data[:] = 1.0
    near = near + sparse.identity(len(place))
    near = sparse.diags(1 / np.asarray(near.sum(axis=1)).ravel()) @ near
    field = held.astype(float)
    for _ in range(200):
        field = np.where(held, 1.0, gain * (near @ field))
    return field


@pytest.fixture(scope="module")
def data() -> ad.AnnData:
    """Four slices; P raises genes 0-19 of perturbed cells, and changes genes 20-49 of these and of cells around."""
    rng, side = np.random.default_rng(0), np.sqrt(N)
    base, types = rng.gamma(2.0, 1.0, 80), np.exp(0.5 * rng.standard_normal((2, 80)))
    signs = np.where(np.arange(30) % 2, 1.0, -1.0)
    counts, obs, places = [], [], []
    for number in range(4):
        place = side * rng.random((N, 2))
        centres = side * np.array([[0.3, 0.3], [0.7, 0.75]])
        held = (number < 3) & (np.linalg.norm(place[:, None] - centres, axis=2) < 3.5).any(axis=1)
        kind = rng.integers(0, 2, N)
        log = np.log(base * types[kind])
        log[:, :20] += 1.2 * held[:, None]
        log[:, 20:50] += reach(place, held)[:, None] * signs
        share = np.exp(log) / np.exp(log).sum(axis=1, keepdims=True)
        counts.append(rng.poisson(rng.gamma(8, share * rng.lognormal(np.log(1500), 0.3, (N, 1)) / 8)))
        labels = {"perturbation": np.where(held, "P", "control"), "cell_type": [f"type_{k}" for k in kind]}
        obs.append(pd.DataFrame({**labels, "slice": f"slice_{number}"}))
        places.append(place + [100 * number, 0])
    frame = pd.concat(obs).set_axis([f"cell_{i}" for i in range(4 * N)])
    adata = ad.AnnData(sparse.csr_matrix(np.vstack(counts).astype(np.float32)), obs=frame)
    adata.obsm["spatial"] = np.vstack(places)
    return adata


@pytest.fixture(scope="module")
def model(data: ad.AnnData, fitted: Callable[..., CFMVC]) -> CFMVC:
    return fitted(data, SETUP, QUICK, n_intrinsic=10)


@pytest.fixture(scope="module")
def niche(model: CFMVC) -> NicheResponse:
    return model.get_niche_response("P")


@pytest.fixture
def slice_3(data: ad.AnnData) -> ad.AnnData:
    """The slice in which nothing was perturbed, with a region in its middle."""
    tissue = data[data.obs["slice"] == "slice_3"].copy()
    place = tissue.obsm["spatial"]
    tissue.obs["region"] = np.linalg.norm(place - place.mean(axis=0), axis=1) < 4
    return tissue


def decay_length(distance: np.ndarray, values: np.ndarray) -> float:
    bounds = (0, [np.inf, 50])
    return curve_fit(lambda x, a, l: a * np.exp(-x / l), distance, values, (values.max(), 2.0), bounds=bounds)[0][1]


def test_the_planted_decay_length_is_recovered(model: CFMVC, slice_3: ad.AnnData, tmp_path: object) -> None:
    before = slice_3.X.copy()
    tl.virtual_tissue(slice_3, model, "P", "region")
    report, region = slice_3.uns["virtual_tissue"], slice_3.obs["region"].to_numpy()
    truth = reach(slice_3.obsm["spatial"], region)
    distance = slice_3.obs["virtual_tissue_distance"].to_numpy()
    planted = decay_length(distance[~region], truth[~region])
    assert abs(report["decay_length"] / planted - 1) < 0.3
    response = slice_3.obs["virtual_tissue"].to_numpy()
    assert np.corrcoef(response[~region], truth[~region])[0, 1] > 0.9
    by_distance = report["by_distance"]["response"].to_numpy()
    assert (np.diff(by_distance) < 0.02 * by_distance[0]).all() and by_distance[-1] < 0.1 * by_distance[0]
    logs = [log_normalize(counts) for counts in (before, slice_3.layers["virtual_tissue"])]
    near = ~region & (truth > 0.4)
    change = (logs[1] - logs[0])[near].mean(axis=0)
    signs = np.where(np.arange(30) % 2, 1.0, -1.0)
    assert (np.sign(change[20:50]) == signs).mean() > 0.9  # they follow in what spreads,
    assert np.abs(change[:20]).mean() < 0.4 * np.abs(change[20:50]).mean()  # not in what does not
    moran = report["moran"]
    assert (moran["after"] > moran["before"]).mean() > 0.8
    enrichment = report["enrichment"]
    assert enrichment.loc["region", "region"] > 3 and enrichment.loc["responding", "region"] > 3
    assert enrichment.loc["unchanged", "region"] < -3
    far = slice_3.obs["virtual_tissue_state"] == "unchanged"
    assert far.any() and not (slice_3.obs["region"] & far).any()
    slice_3.write_h5ad(f"{tmp_path}/tissue.h5ad")
    assert ad.read_h5ad(f"{tmp_path}/tissue.h5ad").uns["virtual_tissue"]["decay_length"] == report["decay_length"]


def test_permuted_places_lose_the_response(model: CFMVC, niche: NicheResponse, data: ad.AnnData) -> None:
    assert niche.found and niche.gain > 0.6
    shuffled = data.copy()
    rng = np.random.default_rng(1)
    for name in shuffled.obs["slice"].unique():
        rows = np.flatnonzero(shuffled.obs["slice"] == name)
        shuffled.obsm["spatial"][rows] = shuffled.obsm["spatial"][rng.permutation(rows)]
    assert not model.get_niche_response("P", shuffled).found


def test_regions_rounds_and_untouched_cells(model: CFMVC, niche: NicheResponse, slice_3: ad.AnnData) -> None:
    region = slice_3.obs["region"].to_numpy()
    alone = model.predict_tissue(slice_3, region, perturbation="P", steps=0, niche=niche)
    outside = sparse.csr_matrix(alone.X)[~region]
    assert (outside != slice_3.X[~region]).nnz == 0
    cells = model.predict_counterfactual(slice_3, np.flatnonzero(region), perturbation="P", seed=0)
    assert (sparse.csr_matrix(alone.X)[region] != cells.X).nnz == 0
    low, high = slice_3.obsm["spatial"].min(axis=0), slice_3.obsm["spatial"].max(axis=0)
    corners = np.array([low, [high[0], low[1]], high, [low[0], high[1]]])
    tl.virtual_tissue(slice_3, model, "P", corners / 2 + (low + high) / 4, niche=niche, key_added="square")
    inside = np.abs(slice_3.obsm["spatial"] - (low + high) / 2) < (high - low) / 4
    assert ((slice_3.obs["square_state"] == "region") == inside.all(axis=1)).all()
    tl.virtual_tissue(slice_3, model, "P", region, hops=1, steps=1, niche=niche, key_added="grown")
    grown = (slice_3.obs["grown_state"] == "region").to_numpy()
    assert grown[region].all() and grown.sum() > 1.3 * region.sum()


def test_a_response_to_distance_falls_off_with_it(model: CFMVC, niche: NicheResponse, slice_3: ad.AnnData) -> None:
    falling = NicheResponse(0.0, 2.5, niche.direction, 0.01)
    tl.virtual_tissue(slice_3, model, "P", "region", niche=falling, steps=30)
    report = slice_3.uns["virtual_tissue"]
    assert report["decay_length"] == pytest.approx(2.5, rel=0.01)
    assert report["provenance"]["niche_length"] == 2.5 and report["provenance"]["niche_gain"] == 0


def test_impossible_tissues(model: CFMVC, slice_3: ad.AnnData) -> None:
    nobody = np.zeros(slice_3.n_obs, dtype=bool)
    for asked, error, words in [
        ({"region": nobody}, DataError, "no cell in the region"),
        ({"region": [1, 2, 3]}, DataError, r"shape \(3,\).*mask of 600 cells"),
        ({"region": "nowhere"}, UnknownConditionError, "nowhere"),
        ({"region": "slice"}, DataError, "boolean"),
        ({"region": "region", "steps": -1}, DataError, "steps is -1"),
        ({"region": "region", "hops": -1}, DataError, "hops is -1"),
        ({"region": "region", "perturbation": "Q"}, UnknownConditionError, "'Q'"),
        ({"region": "region", "output": "rate"}, DataError, "output="),
    ]:
        with pytest.raises(error, match=words):
            tl.virtual_tissue(slice_3, model, **{"perturbation": "P", **asked})
    with pytest.raises(DataError, match="view"):
        tl.virtual_tissue(slice_3[:50], model, "P", nobody[:50])


def test_without_coordinates(fitted: Callable[..., CFMVC], data: ad.AnnData) -> None:
    plain = data[::6].copy()
    model = fitted(plain, {"batch_key": "slice"}, {"max_epochs": 1})
    with pytest.raises(DataError, match="spatial_key"):
        tl.virtual_tissue(plain, model, "P", np.ones(plain.n_obs, dtype=bool))
    with pytest.raises(DataError, match="spatial_key"):
        model.get_niche_response("P")


def test_the_map(slice_3: ad.AnnData) -> None:
    place, region = slice_3.obsm["spatial"], slice_3.obs["region"].to_numpy()
    values = np.where(region, 1.0, np.nan)
    ax = pl.tissue(place, values, region, label="response", show=False)
    assert len(ax.collections[0].get_offsets()) == region.sum()
    for arguments, error in [((place, values[:5]), DataError), ((place, values * np.nan), NonFiniteError)]:
        with pytest.raises(error):
            pl.tissue(*arguments, show=False)
