"""Questions to a model: what is refused, with which words, and what comes back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from cfmvc_scvi import CFMVC
from cfmvc_scvi.errors import CFMVCWarning, DataError, NotTrainedError, UnknownConditionError, UnsupportedError


@pytest.fixture
def cells(tiny_adata: ad.AnnData) -> ad.AnnData:
    return tiny_adata[tiny_adata.obs["perturbation"] == "control"][:12].copy()


def test_predicting_before_training_names_the_missing_stage(
    tiny_adata: ad.AnnData, make_model: Callable[..., CFMVC], quick: dict[str, Any]
) -> None:
    model = make_model(tiny_adata)
    with pytest.raises(NotTrainedError, match=r"'representation'.*train\(\)"):
        model.predict_counterfactual(perturbation="A")
    model.train(**quick, stage="representation")
    with pytest.raises(NotTrainedError, match="'flow'"):
        model.sample_cells("A", n_cells=3)
    assert set(model.get_effect("A")["context"]) == {"B", "T", "mono"}


def test_without_perturbations_there_is_no_counterfactual(
    tiny_adata: ad.AnnData, make_model: Callable[..., CFMVC], quick: dict[str, Any]
) -> None:
    model = make_model(tiny_adata, {"perturbation_key": None})
    model.train(**quick)
    for ask in (model.predict_counterfactual, lambda **_: model.sample_cells("A", n_cells=1)):
        with pytest.raises(DataError, match="perturbation_key"):
            ask(perturbation="A")


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"perturbation": "Aa"}, UnknownConditionError, "'Aa'.*Known.*A, B.*Closest.*'A'"),
        ({"perturbation": "A+Z"}, UnknownConditionError, r"'Z' \(in 'A\+Z'\)"),
        ({"perturbation": ""}, UnknownConditionError, "''"),
        ({"perturbation": 0}, UnknownConditionError, "'0'"),
        ({"labels": "monocyte"}, UnknownConditionError, "'monocyte'.*label categories.*mono"),
        ({"labels": 0}, UnknownConditionError, "'0'.*label"),
        ({"batch": "b9"}, UnknownConditionError, "'b9'.*batch categories.*b1, b2"),
        ({"perturbation": "A", "dose": 1.0}, DataError, "dose_key"),
        ({"perturbation": "A", "output": "mean"}, DataError, "'mean'.*counts, rate, normalized, latent"),
        ({"perturbation": "A", "heterogeneity": 1.5}, DataError, r"heterogeneity is 1.5.*\[0, 1\]"),
        ({"perturbation": "A", "strength": 1.6}, DataError, r"strength is 1.6.*\[0, 1.5\]"),
        ({"perturbation": "A", "strength": -0.1}, DataError, "strength is -0.1"),
        ({"perturbation": "A", "strength": np.nan}, DataError, "strength is nan"),
        ({"perturbation": "A", "strength": 0.5, "batch": "b1"}, DataError, "'b1'.*between two batches"),
        ({"perturbation": "A", "guidance_scale": -1.0}, DataError, "guidance_scale is -1.0"),
        ({"perturbation": "A", "guidance_scale": np.inf}, DataError, "guidance_scale is inf"),
        ({"perturbation": "A", "n_samples": 0}, DataError, "n_samples is 0"),
        ({"perturbation": "A", "n_samples": 2, "output": "rate"}, DataError, "output='counts'"),
        ({"perturbation": "A", "indices": []}, DataError, "indices is empty"),
        ({"perturbation": "A", "indices": np.zeros(12, dtype=bool)}, DataError, "indices is empty"),
        ({"perturbation": "A", "indices": [True, False]}, DataError, "mask.*12 cells"),
        ({"perturbation": "A", "indices": [0, 99]}, DataError, r"1 indices are outside 0 \.\. 11, first 99"),
        ({"perturbation": "A", "indices": [1, 1]}, DataError, "1 cells again"),
        ({"perturbation": "A", "indices": [0.5]}, DataError, "float64"),
    ],
)
def test_impossible_questions_are_refused(
    trained: CFMVC, cells: ad.AnnData, asked: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        trained.predict_counterfactual(cells, **asked)


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"perturbation": "C", "n_cells": 3}, UnknownConditionError, "'C'"),
        ({"perturbation": "A", "n_cells": 0}, DataError, "n_cells is 0"),
        ({"perturbation": "A", "n_cells": 3, "labels": "X"}, UnknownConditionError, "'X'.*label"),
        ({"perturbation": "A", "n_cells": 3, "sample": "s1"}, DataError, "sample_key"),
        ({"perturbation": "A", "n_cells": 3, "batch": "b3"}, UnknownConditionError, "'b3'.*batch"),
        ({"perturbation": "A", "n_cells": 3, "output": "x"}, DataError, "'x'"),
    ],
)
def test_impossible_samples_are_refused(
    trained: CFMVC, asked: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        trained.sample_cells(**asked)


def test_a_mask_and_positions_are_the_same_question(trained: CFMVC, cells: ad.AnnData) -> None:
    mask = np.arange(12) % 3 == 0
    first, second = (
        trained.predict_counterfactual(cells, x, perturbation="A", seed=0) for x in (mask, np.flatnonzero(mask))
    )
    assert list(first.obs_names) == list(cells.obs_names[mask])
    assert (first.X != second.X).nnz == 0


def test_one_cell_and_an_empty_cell_are_predicted(trained: CFMVC, cells: ad.AnnData) -> None:
    one = trained.predict_counterfactual(cells[:1].copy(), perturbation="A", batch="b2", seed=0)
    assert one.shape == (1, 60) and one.X.sum() > 0
    empty = cells.copy()
    empty.X = sparse.csr_matrix(empty.shape, dtype=np.float32)
    with pytest.warns(CFMVCWarning, match="without a count"):
        result = trained.predict_counterfactual(empty, perturbation="A", seed=0)
    assert result.X.sum() == 0
    with pytest.warns(CFMVCWarning):
        rate = trained.predict_counterfactual(empty, perturbation="A", output="normalized", seed=0).X
    assert np.isfinite(rate).all()


def test_another_batch_without_a_technical_latent(
    tiny_adata: ad.AnnData, make_model: Callable[..., CFMVC], quick: dict[str, Any]
) -> None:
    model = make_model(tiny_adata, n_technical=0)
    model.train(**quick)
    cells = tiny_adata[(tiny_adata.obs["perturbation"] == "control") & (tiny_adata.obs["batch"] == "b1")].copy()
    moved = model.predict_counterfactual(cells, batch="b2", seed=0)
    assert (moved.X != cells.X).nnz > 0
    assert np.array_equal(moved.obsm["X_cfmvc"], moved.obsm["X_cfmvc_counterfactual"])


def test_namesakes_are_warned_of(trained: CFMVC, cells: ad.AnnData) -> None:
    cells.obs_names = ["twin", "twin", *cells.obs_names[2:]]
    with pytest.warns(UserWarning, match="obs_names_make_unique") as caught:  # anndata has its own
        trained.predict_counterfactual(cells, perturbation="A", seed=0)
    assert any(issubclass(each.category, CFMVCWarning) and "twin" in str(each.message) for each in caught)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x[:, :50].copy(), "10 genes of the model not in the data"),
        (lambda x: ad.AnnData(x.X, x.obs, pd.DataFrame(index=[f"ENSG{i}" for i in range(60)])), "no gene is shared"),
        (lambda x: ad.AnnData(np.log1p(x.X.toarray()), x.obs, x.var), "log-normal|logarithm|integer"),
        (lambda x: ad.AnnData(-x.X, x.obs, x.var), "negative"),
        (lambda x: ad.AnnData(x.X * np.float32(np.nan), x.obs, x.var), "NaN"),
    ],
)
def test_cells_that_do_not_fit_are_refused(
    trained: CFMVC, cells: ad.AnnData, change: Callable[[ad.AnnData], ad.AnnData], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        trained.predict_counterfactual(change(cells), perturbation="A")


def test_a_new_category_of_the_cells_is_refused(trained: CFMVC, cells: ad.AnnData) -> None:
    cells.obs["cell_type"] = "unheard of"
    with pytest.raises(UnknownConditionError, match="unheard of"):
        trained.predict_counterfactual(cells, perturbation="A")


def test_key_added_writes_into_the_data(own: CFMVC, cells: ad.AnnData, tmp_path: Path) -> None:
    shuffled = cells[:, ::-1].copy()
    result = own.predict_counterfactual(shuffled, [1, 3], perturbation="A", seed=0, key_added="seen")
    assert (shuffled.layers["seen"][[1, 3]] != result[:, shuffled.var_names].X).nnz == 0
    assert shuffled.layers["seen"][[0, 2, 4]].nnz == 0
    assert np.isnan(shuffled.obsm["X_seen"][0]).all() and np.isfinite(shuffled.obsm["X_seen"][[1, 3]]).all()
    shuffled.write_h5ad(tmp_path / "written.h5ad")
    result.write_h5ad(tmp_path / "result.h5ad")
    again, back = ad.read_h5ad(tmp_path / "written.h5ad"), ad.read_h5ad(tmp_path / "result.h5ad")
    assert again.uns["seen"]["arguments"]["perturbation"] == "A" and again.uns["seen"]["solver"]["status"] == "success"
    assert (back.X != result.X).nnz == 0 and back.uns["cfmvc"]["versions"]["cfmvc-scvi"]


def test_key_added_without_data_writes_into_those_of_the_model(own: CFMVC) -> None:
    own.predict_counterfactual(perturbation="B", seed=0, key_added="b", output="normalized")
    assert own.adata.layers["b"].shape == own.adata.shape
    np.testing.assert_allclose(own.adata.layers["b"].sum(axis=1), 1e4, rtol=1e-4)


def test_key_added_refuses_views_and_foreign_genes_at_once(trained: CFMVC, cells: ad.AnnData) -> None:
    with pytest.raises(DataError, match=r"view.*copy"):
        trained.predict_counterfactual(cells[:5], perturbation="A", key_added="x")
    more = ad.concat([cells, ad.AnnData(np.ones((12, 1)), cells.obs, pd.DataFrame(index=["new"]))], axis=1)
    more.obs = cells.obs
    with pytest.raises(DataError, match="'new'"):
        trained.predict_counterfactual(more, perturbation="A", key_added="x")


def test_draws_and_new_cells_can_be_written(trained: CFMVC, cells: ad.AnnData, tmp_path: Path) -> None:
    draws = trained.predict_counterfactual(cells, perturbation="A+B", n_samples=2, seed=0)
    new = trained.sample_cells("A+B", n_cells=7, seed=0)
    for name, result in {"draws": draws, "new": new}.items():
        result.write_h5ad(tmp_path / f"{name}.h5ad")
        back = ad.read_h5ad(tmp_path / f"{name}.h5ad")
        assert (back.X != result.X).nnz == 0 and list(back.obs_names) == list(result.obs_names)
        assert back.uns["cfmvc"]["n_conditions_unseen"] == 3
    assert list(new.var_names) == list(cells.var_names)
    assert set(new.obs.columns) >= {"perturbation", "cell_type", "batch", "target_condition", "reference_cell"}
    again = trained.predict_counterfactual(new, perturbation="A+B", seed=1)
    assert (again.X != new.X).nnz == 0  # registered as what they are


def test_a_model_without_data_predicts(own: CFMVC, cells: ad.AnnData, tmp_path: Path) -> None:
    expected = own.predict_counterfactual(cells, perturbation="A", seed=0)
    own.save(tmp_path / "bare")
    bare = CFMVC.load(tmp_path / "bare", adata=False, accelerator="cpu")
    with pytest.raises(DataError, match="without data"):
        bare.predict_counterfactual(perturbation="A", key_added="a")
    assert (bare.predict_counterfactual(cells, perturbation="A", seed=0).X != expected.X).nnz == 0
    assert bare.sample_cells("A", n_cells=2, seed=0).shape == (2, 60)
    assert len(bare.get_effect("A")) == 180


def test_contexts_need_control_cells(
    tiny_adata: ad.AnnData, make_model: Callable[..., CFMVC], quick: dict[str, Any]
) -> None:
    keep = ~((tiny_adata.obs["perturbation"] == "control") & (tiny_adata.obs["cell_type"] == "T"))
    adata = tiny_adata[keep].copy()
    with pytest.warns(CFMVCWarning, match="T"):
        model = make_model(adata)
    model.train(**quick)
    orphans = adata[adata.obs["cell_type"] == "T"].copy()
    for output in ("counts", "latent"):
        with pytest.raises(UnknownConditionError, match=r"'T' has no control cells"):
            model.predict_counterfactual(orphans, perturbation="control", output=output)
    with pytest.raises(UnknownConditionError, match="No control cells of 'T'"):
        model.sample_cells("A", n_cells=2, labels="T")
    assert model.sample_cells("A", n_cells=9, seed=0).obs["cell_type"].isin(["B", "mono"]).all()


def test_unseen_pairs_of_label_and_sample(
    tiny_adata: ad.AnnData, make_model: Callable[..., CFMVC], quick: dict[str, Any]
) -> None:
    tiny_adata.obs["donor"] = np.where(tiny_adata.obs["cell_type"] == "T", "d2", "d1")
    cells = tiny_adata[tiny_adata.obs["perturbation"] == "control"].copy()
    model = make_model(tiny_adata, {"sample_key": "donor"})
    model.train(**quick)
    with pytest.raises(UnknownConditionError, match=r"not seen in training: T \| d1"):
        model.predict_counterfactual(cells, perturbation="A", labels="T")
    with pytest.raises(UnknownConditionError, match=r"No control cells of 'T \| d1'"):
        model.sample_cells("A", n_cells=2, labels="T", sample="d1")
    new = model.sample_cells("A", n_cells=6, sample="d1", seed=0)
    assert set(new.obs["donor"]) == {"d1"} and set(new.obs["target_context"]) <= {"B | d1", "mono | d1"}


def test_a_part_of_the_way_needs_a_known_start(
    tiny_adata: ad.AnnData, make_model: Callable[..., CFMVC], quick: dict[str, Any]
) -> None:
    held_out = ((tiny_adata.obs["perturbation"] == "B") & (tiny_adata.obs["cell_type"] == "T")).to_numpy()
    model = make_model(tiny_adata[~held_out].copy())
    model.train(**quick)
    cells = tiny_adata[held_out][:6].copy()
    with pytest.raises(DataError, match=r"strength is 0.5 for 6 cells of 'B' in context 'T'"):
        model.predict_counterfactual(cells, perturbation="A", strength=0.5)
    for strength in (0.0, 1.0):
        result = model.predict_counterfactual(cells, perturbation="A", strength=strength, seed=0)
        assert ((result.X != cells.X).nnz == 0) is (strength == 0)


@pytest.mark.parametrize("dose", [-1.0, np.nan, np.inf])
def test_impossible_doses(
    tiny_adata: ad.AnnData, make_model: Callable[..., CFMVC], quick: dict[str, Any], dose: float
) -> None:
    tiny_adata.obs["dose"] = np.where(tiny_adata.obs["perturbation"] == "control", 0.0, 2.0)
    model = make_model(tiny_adata, {"dose_key": "dose"})
    model.train(**quick)
    for perturbation in ("A", None):
        with pytest.raises(DataError, match=f"dose is {dose}"):
            model.predict_counterfactual(perturbation=perturbation, dose=dose)
    provenance = [
        model.predict_counterfactual(indices=range(9), perturbation="A", dose=x).uns["cfmvc"] for x in (1.0, 5.0)
    ]
    assert [x["n_conditions_extrapolated"] > 0 for x in provenance] == [False, True]


def test_a_part_that_was_never_seen_alone_is_named(
    tiny_adata: ad.AnnData, make_model: Callable[..., CFMVC], quick: dict[str, Any]
) -> None:
    tiny_adata.obs["perturbation"] = tiny_adata.obs["perturbation"].cat.rename_categories({"B": "B+C"})
    model = make_model(tiny_adata)
    model.train(**quick)
    assert model.predict_counterfactual(indices=[0, 1], perturbation="C+B", seed=0).shape == (2, 60)
    for ask in (lambda: model.predict_counterfactual(perturbation="A+B"), lambda: model.get_effect("A+B")):
        with pytest.raises(UnknownConditionError, match=r"'A\+B' was not seen.*'B' by itself"):
            ask()


def test_counts_that_are_not_whole_are_rounded_for_new_counts(
    tiny_adata: ad.AnnData, make_model: Callable[..., CFMVC], quick: dict[str, Any]
) -> None:
    tiny_adata.X = (tiny_adata.X * np.float32(0.9)).tocsr()
    model = make_model(tiny_adata, {"allow_non_integer": True})
    model.train(**quick)
    same = model.predict_counterfactual(seed=0)
    assert (same.X != tiny_adata.X).nnz == 0
    control = np.flatnonzero(tiny_adata.obs["perturbation"] == "control")
    for output in ("counts", "rate"):
        result = model.predict_counterfactual(indices=control, perturbation="A", output=output, seed=0).X
        values = result.data if output == "counts" else result
        assert np.isfinite(values).all() and values.min() >= 0
        assert output == "rate" or (values == np.rint(values)).all()
    assert model.sample_cells("A", n_cells=5, seed=0).X.sum() > 0


def test_minified_models_say_why_they_cannot(own: CFMVC) -> None:
    own.adata.obsm["X_latent_qzm"], own.adata.obsm["X_latent_qzv"] = own.get_latent_representation(
        return_dist=True, part="both"
    )
    own.minify_adata()
    with pytest.raises(UnsupportedError, match="minified"):
        own.predict_counterfactual(perturbation="A")


def test_cells_in_space_keep_their_neighbours(
    tiny_adata: ad.AnnData, make_model: Callable[..., CFMVC], quick: dict[str, Any], rng: np.random.Generator
) -> None:
    tiny_adata.obsm["spatial"] = rng.random((tiny_adata.n_obs, 2))
    model = make_model(tiny_adata, {"spatial_key": "spatial"})
    model.train(**quick)
    query = tiny_adata.copy()
    rows = np.flatnonzero(query.obs["perturbation"] == "control")[:9]
    everything = model.predict_counterfactual(query, perturbation="A", seed=0)
    part = model.predict_counterfactual(query, rows, perturbation="A", seed=0)
    assert (part.X != everything.X[rows]).nnz == 0
    assert model.sample_cells("B", n_cells=4, seed=0).X.sum() > 0
    query.obsm["spatial"] = np.full((query.n_obs, 2), np.nan)
    with pytest.raises(DataError, match=r"spatial.*NaN"):
        model.predict_counterfactual(query, perturbation="A")
