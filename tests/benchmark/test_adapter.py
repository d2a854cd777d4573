import anndata as ad
import numpy as np
import pytest

from cfmvc_scvi import benchmark as bm
from cfmvc_scvi.errors import DataError, UnknownConditionError


@pytest.fixture
def folds(tiny_adata):
    return bm.make_folds(tiny_adata, "perturbation", context_key="cell_type")


class Copies:
    """Control cells as they are, genes in reverse order."""

    def __init__(self):
        self.fitted = []

    def fit(self, train, seed):
        self.fitted.append((train.n_obs, seed))

    def predict(self, query, fold, seed):
        return query[:, ::-1].copy()


def test_a_model_is_trained_once_per_training_set_and_seed(tiny_adata, folds):
    model = Copies()
    bm.evaluate(tiny_adata, folds, {"copies": model}, (0, 1))
    assert model.fitted == [(240, 0), (240, 1)] * 2  # without A, then without B


def test_genes_of_a_prediction_are_matched_by_name(tiny_adata, folds):
    train, query = tiny_adata[folds[0].train], tiny_adata[folds[0].query]
    predicted = bm.as_predictor(Copies())(train, query, folds[0], 0)
    np.testing.assert_array_equal(predicted.values.toarray(), query.X.toarray())


def test_a_scale_can_come_with_the_cells(tiny_adata, folds):
    class Halves(Copies):
        def predict(self, query, fold, seed):
            cells = ad.AnnData(np.full(query.shape, 0.5), obs=query.obs, var=query.var)
            cells.uns["cfmvc_benchmark"] = {"scale": "log1p_cp10k"}
            return cells

    predicted = bm.as_predictor(Halves())(tiny_adata, tiny_adata[folds[0].query], folds[0], 0)
    assert predicted.scale == "log1p_cp10k"


def test_what_is_no_model_is_refused():
    with pytest.raises(DataError, match="is no model"):
        bm.as_predictor("CFMVC")
    with pytest.raises(DataError, match="is no model"):
        bm.as_predictor(Copies)  # the class, not an object


def test_files_are_predictions(tiny_adata, folds, tmp_path):
    store = bm.PredictionStore(tmp_path)
    made = bm.evaluate(tiny_adata, folds[:2], {"floor": bm.baseline_predictor(bm.NoChange)}, (0,), store=store)
    read = bm.predictions_from(tmp_path / "predictions" / "floor")
    scores = bm.evaluate(tiny_adata, folds[:2], {"files": read}, (0,))
    for table in (made, scores):
        table.drop(table.index[table.method == bm.CEILING], inplace=True)
    np.testing.assert_array_equal(made.value, scores.value)  # CPU seconds among them
    with pytest.raises(UnknownConditionError, match="has 2 predictions, but no '002-A-mono-seed0.h5ad'"):
        bm.evaluate(tiny_adata, folds[:3], {"files": read}, (0,))
    with pytest.raises(UnknownConditionError, match="no directory"):
        bm.predictions_from(tmp_path / "predictions" / "none")


def test_exported_folds_hide_the_truth(tiny_adata, folds, tmp_path):
    tiny_adata.obsm["X_pca"] = np.ones((360, 2))
    tiny_adata.layers["log"] = tiny_adata.X.copy()
    places = bm.export_folds(tiny_adata, folds, tmp_path)
    assert [place.name for place in places] == [fold.id for fold in folds]
    for place, fold in zip(places, folds, strict=True):
        train, query = (ad.read_h5ad(place / f"{name}.h5ad") for name in ("train", "query"))
        assert list(train.obs_names) == list(tiny_adata.obs_names[fold.train])
        assert fold.condition not in set(train.obs["perturbation"])
        assert set(query.obs["target_perturbation"]) == {fold.condition}
        assert set(query.obs["perturbation"]) == {"control"}
        np.testing.assert_array_equal(query.X.toarray(), tiny_adata[fold.query].X.toarray())
        assert not train.obsm and not train.layers and not train.uns
    assert len({(place / "train.h5ad").stat().st_ino for place in places}) == 2  # one file for each training set
