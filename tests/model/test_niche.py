"""What the flow knows of the place of a cell."""

from __future__ import annotations

import numpy as np
import pytest

from cfmvc_scvi import CFMVC
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.model.niche import neighbour_weights, niche_features, niche_width


@pytest.fixture
def places(rng):
    slices = np.repeat([0, 1], 40)
    return rng.random((80, 2)) * [3.0, 1.0] + 100.0 * slices[:, None], rng.normal(size=(80, 4)), slices


def test_neighbours_and_messages(places):
    coordinates, values, slices = places
    near = niche_features("neighbours", coordinates, values, slices)
    np.testing.assert_allclose(near, neighbour_weights(coordinates, slices) @ values, rtol=1e-5)
    told = niche_features("messages", coordinates, values, slices)
    assert told.shape == (80, niche_width("messages", 4, 2)) == (80, 12)
    np.testing.assert_array_equal(told[:, :4], near)
    far = np.flatnonzero(neighbour_weights(coordinates, slices)[0].toarray().ravel() == 0)
    reached = (neighbour_weights(coordinates, slices) ** 2)[0].toarray().ravel() > 0
    second = next(cell for cell in far if reached[cell] and cell)
    changed = values.copy()
    changed[second] += 10
    again = niche_features("messages", coordinates, changed, slices)
    assert (again[0, :4] == told[0, :4]).all() and (again[0, 4:8] != told[0, 4:8]).all()  # two neighbourhoods away
    np.testing.assert_allclose(again[second], told[second], atol=1e-5)  # nobody hears of himself
    elsewhere = np.flatnonzero(slices == 1)
    np.testing.assert_array_equal(again[elsewhere], told[elsewhere])  # and no further than the slice


def test_coordinates_have_no_unit_and_no_origin(places):
    coordinates, values, slices = places
    found = niche_features("coordinates", coordinates, values, slices)
    for code in (0, 1):
        np.testing.assert_allclose(found[slices == code].mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(found[slices == code].std(axis=0), 1, atol=1e-5)
    moved = niche_features("coordinates", coordinates * 7 + slices[:, None], values, slices)
    np.testing.assert_allclose(moved, found, atol=1e-4)


@pytest.mark.parametrize("niche", ["messages", "coordinates"])
def test_models_train_predict_and_come_back(niche, tiny_adata, make_model, quick, rng, tmp_path):
    tiny_adata.obsm["spatial"] = rng.random((tiny_adata.n_obs, 2))
    model = make_model(tiny_adata, {"spatial_key": "spatial"}, niche=niche)
    model.train(**quick)
    predicted = model.predict_counterfactual(perturbation="A", seed=0)
    model.save(tmp_path / "model", save_anndata=True)
    back = CFMVC.load(tmp_path / "model", accelerator="cpu")
    assert back.niche_ == niche
    assert (back.predict_counterfactual(perturbation="A", seed=0).X != predicted.X).nnz == 0


def test_other_niches_are_refused(tiny_adata, make_model, rng):
    tiny_adata.obsm["spatial"] = rng.random((tiny_adata.n_obs, 2))
    with pytest.raises(DataError, match="niche is 'near'.*neighbours, messages, coordinates"):
        make_model(tiny_adata.copy(), {"spatial_key": "spatial"}, niche="near")
    with pytest.raises(DataError, match="niche='messages' needs coordinates.*spatial_key="):
        make_model(tiny_adata, niche="messages")
