import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from cfmvc_scvi.benchmark import Prediction, PredictionStore, data_fingerprint, make_folds
from cfmvc_scvi.benchmark.fold import slug
from cfmvc_scvi.errors import DataError


@pytest.fixture
def fold(tiny_adata):
    return make_folds(tiny_adata)[2]


@pytest.fixture
def store(tmp_path):
    return PredictionStore(tmp_path / "run")


def request(**changes):
    folds = [{"id": "000-A-T", "condition": "A", "context": "T"}]
    return {"holdout": "cell_type", "methods": {"m": {"a": 1}}, "seeds": [0], "folds": folds, "data": "x"} | changes


def test_a_prediction_comes_back_as_it_was(store, fold, rng):
    counts = sparse.csr_matrix(rng.poisson(1.0, (7, 3)).astype(float))
    store.write("m 1", fold, 4, Prediction(counts, "counts", 2.5), ["g0", "g1", "g2"])
    path = store.path("m 1", fold, 4)
    assert path.relative_to(store.directory).as_posix() == "predictions/m_1/002-A-mono-seed4.h5ad"
    about = ad.read_h5ad(path).uns["cfmvc_benchmark"]
    assert about == {
        "method": "m 1", "condition": "A", "context": "mono", "seed": 4, "scale": "counts", "cpu_seconds": 2.5,
    }  # fmt: skip
    again = store.read("m 1", fold, 4, ["g2", "g0", "g1"])  # genes by name
    np.testing.assert_array_equal(again.values.toarray(), counts.toarray()[:, [2, 0, 1]])
    assert (again.scale, again.cpu_seconds) == ("counts", 2.5)
    assert store.read("m 1", fold, 5, ["g0"]) is None
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # nothing temporary stays


def test_dense_log_values_stay_dense(store, fold, rng):
    values = rng.random((4, 2)).astype(np.float32)
    store.write("m", fold, 0, Prediction(values, "log1p_cp10k"), ["g0", "g1"])
    np.testing.assert_array_equal(store.read("m", fold, 0, ["g0", "g1"]).values, values)


def test_a_file_of_another_group_or_without_scale_is_refused(store, tiny_adata, fold, rng):
    other = make_folds(tiny_adata)[0]
    store.write("m", other, 0, Prediction(rng.poisson(1.0, (4, 1))), ["g"])
    store.path("m", other, 0).rename(store.path("m", fold, 0))
    with pytest.raises(DataError, match="predicts context 'B', the fold '002-A-mono' holds out 'mono'"):
        store.read("m", fold, 0, ["g"])
    ad.AnnData(np.ones((2, 1)), var=pd.DataFrame(index=["g"])).write_h5ad(store.path("m", fold, 0))
    with pytest.raises(DataError, match="has no uns\\['cfmvc_benchmark'\\]"):
        store.read("m", fold, 0, ["g"])


def test_a_run_may_grow_but_not_change(store):
    store.open_run(request(), resume=True)
    more = request(methods={"n": {}}, seeds=[1], folds=[{"id": "001-A-B", "condition": "A", "context": "B"}])
    store.open_run(more, resume=True)
    run = store.read_run()
    assert (run["seeds"], list(run["methods"]), [fold["id"] for fold in run["folds"]]) == (
        [0, 1], ["m", "n"], ["000-A-T", "001-A-B"],
    )  # fmt: skip
    with pytest.raises(DataError, match="other data or settings; different: data"):
        store.open_run(request(data="y"), resume=True)
    with pytest.raises(DataError, match="different: settings of 'm'"):
        store.open_run(request(methods={"m": {"a": 2}}), resume=True)
    changed = [{"id": "000-A-T", "condition": "A", "context": "other"}]
    with pytest.raises(DataError, match="different: folds"):
        store.open_run(request(folds=changed), resume=True)
    with pytest.raises(DataError, match="has a run already"):
        store.open_run(request(), resume=False)
    assert json.loads((store.directory / "run.json").read_text()) == run


def test_methods_need_directories_of_their_own(store):
    with pytest.raises(DataError, match="'a b' and 'A_B' would share the directory"):
        store.open_run(request(methods={"a b": {}, "A_B": {}}), resume=True)


def test_scores_keep_names_that_look_like_numbers_or_nothing(store):
    scores = pd.DataFrame([("1", "NA", "None", 0, "x", np.nan), ("2", "A", "T", 1, "x", 0.1 + 0.2)])
    scores.columns = ["method", "condition", "context", "seed", "metric", "value"]
    store.write_scores(scores)
    pd.testing.assert_frame_equal(store.read_scores(), scores, check_dtype=False, check_exact=True)


def test_what_is_not_there_is_an_error(store):
    with pytest.raises(DataError, match="no run.json"):
        store.read_run()
    with pytest.raises(DataError, match="no scores.csv"):
        store.read_scores()


def test_fingerprint_follows_counts_names_and_columns(tiny_adata):
    first = data_fingerprint(tiny_adata, ["cell_type"])
    assert first == data_fingerprint(tiny_adata.copy(), ["cell_type"])
    tiny_adata.obs["batch"] = "other"
    assert first == data_fingerprint(tiny_adata, ["cell_type"])
    changed = tiny_adata.copy()
    changed.X[0, 0] += 1
    relabelled = tiny_adata.copy()
    relabelled.obs["cell_type"] = list(tiny_adata.obs["cell_type"][::-1])
    renamed = tiny_adata.copy()
    renamed.var_names = [f"x{name}" for name in tiny_adata.var_names]
    others = {data_fingerprint(adata, ["cell_type"]) for adata in (changed, relabelled, renamed)}
    assert len(others | {first}) == 4


def test_slugs_are_safe_file_names():
    assert slug("B cells / CD4+ (naive)") == "B_cells_CD4+_naive"
    assert slug("../..") == "_" and slug("é") == "_"
    assert len(slug("x" * 500)) == 60
