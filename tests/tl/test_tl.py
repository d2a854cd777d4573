"""Tools that write a model's answers into the data."""

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest

from cfmvc_scvi import CFMVC, tl
from cfmvc_scvi.errors import DataError, UnknownConditionError


@pytest.fixture(scope="module")
def model(_counts_adata: ad.AnnData) -> CFMVC:
    adata = _counts_adata.copy()
    CFMVC.setup_anndata(adata, batch_key="batch", labels_key="cell_type", perturbation_key="perturbation")
    model = CFMVC(adata, n_intrinsic=4, n_hidden=16, flow_kwargs={"n_hidden": 16})
    pairs = {"batch_size": 64, "steps_per_epoch": 4}
    model.train(2, accelerator="cpu", enable_progress_bar=False, pair_kwargs=pairs)
    return model


def test_latent(model: CFMVC, tiny_adata: ad.AnnData) -> None:
    tl.latent(tiny_adata, model, technical=True)
    np.testing.assert_array_equal(tiny_adata.obsm["X_cfmvc"], model.get_latent_representation(tiny_adata))
    assert tiny_adata.obsm["X_cfmvc_technical"].shape == (360, 2)


def test_counterfactual(model: CFMVC, tiny_adata: ad.AnnData, tmp_path: Path) -> None:
    tl.counterfactual(tiny_adata, model, "A", seed=0)
    tl.counterfactual(tiny_adata, model, "B", key_added="other", seed=0, output="rate")
    under_a = (tiny_adata.obs["perturbation"] == "A").to_numpy()
    assert (tiny_adata.layers["A"][under_a] != tiny_adata.X[under_a]).nnz == 0
    assert (tiny_adata.layers["A"][~under_a] != tiny_adata.X[~under_a]).nnz > 0
    assert tiny_adata.uns["other"]["arguments"]["perturbation"] == "B" and tiny_adata.obsm["X_other"].shape == (360, 4)
    tiny_adata.write_h5ad(tmp_path / "cells.h5ad")
    assert (ad.read_h5ad(tmp_path / "cells.h5ad").layers["A"] != tiny_adata.layers["A"]).nnz == 0


def test_effect(model: CFMVC, tiny_adata: ad.AnnData, tmp_path: Path) -> None:
    tl.effect(tiny_adata, model, "A")
    table = tiny_adata.uns["effect"]
    assert list(table.columns) == ["context", "gene", "control", "delta", "sd", "observed", "low", "high"]
    assert len(table) == 180
    doubled = table[table["gene"].isin([f"gene{i}" for i in range(10)])]
    assert doubled["delta"].mean() > 0.2 > np.abs(table["delta"].median())
    assert table["observed"].all() and (table["sd"] >= 0).all()
    for _, rows in table.groupby("context"):
        assert rows["delta"].abs().is_monotonic_decreasing
    tiny_adata.write_h5ad(tmp_path / "cells.h5ad")
    assert len(ad.read_h5ad(tmp_path / "cells.h5ad").uns["effect"]) == 180
    with pytest.raises(UnknownConditionError, match="'Z'"):
        tl.effect(tiny_adata, model, "Z")


def test_trust(model: CFMVC, tiny_adata: ad.AnnData, tmp_path: Path) -> None:
    tl.trust(tiny_adata, model, "A+B", key_added="both")
    table = tiny_adata.uns["both"]
    assert table["composed"].all() and not table["observed"].any() and table["trust"].between(0, 1).all()
    tiny_adata.write_h5ad(tmp_path / "cells.h5ad")
    back = ad.read_h5ad(tmp_path / "cells.h5ad").uns["both"]
    np.testing.assert_array_equal(back["trust"], table["trust"])
    with pytest.raises(UnknownConditionError, match="'Z'"):
        tl.trust(tiny_adata, model, "Z")


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"perturbations": ["Aa"]}, UnknownConditionError, "'Aa'.*Closest.*'A'"),
        ({"perturbations": []}, DataError, "0 candidates"),
        ({"perturbations": ["A", "A"]}, DataError, "each once"),
        ({"level": 1.0}, DataError, "level is 1.0"),
        ({"n_cells": 3}, DataError, "n_cells is 3"),
        ({"n_resamples": 0}, DataError, "0 resamples"),
        ({"output": "rate"}, DataError, "output="),
        ({"strength": 2.0}, DataError, "strength is 2.0"),
    ],
)
def test_impossible_rankings(
    model: CFMVC, tiny_adata: ad.AnnData, asked: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        tl.rank_perturbations(tiny_adata, model, tiny_adata[:50].copy(), **asked)


def test_targets_that_cannot_be_compared(model: CFMVC, tiny_adata: ad.AnnData) -> None:
    logged = tiny_adata.copy()
    logged.X = logged.X.log1p()
    few, part = tiny_adata[:4].copy(), tiny_adata[:, :9].copy()
    for target, words in ((few, "target has 4 cells"), (logged, "log-normalised"), (part, "51 genes of the model")):
        with pytest.raises(DataError, match=words):
            tl.rank_perturbations(tiny_adata, model, target)


def test_a_ranking_is_a_function_of_the_seed(model: CFMVC, tiny_adata: ad.AnnData) -> None:
    target = tiny_adata[tiny_adata.obs["perturbation"] == "A"].copy()
    target.obs = target.obs[[]]  # its columns are not read
    control = tiny_adata[tiny_adata.obs["perturbation"] == "control"].copy()
    first, again, other = (tl.rank_perturbations(control, model, target, n_cells=60, seed=s) for s in (0, 0, 1))
    assert first.equals(again) and not first.equals(other)
    assert first.loc[0, "perturbation"] == "A" and list(first["energy"]) == sorted(first["energy"])


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"combination": "A"}, DataError, "'A' is no combination"),
        ({"combination": "A+control"}, DataError, "no combination"),
        ({"combination": "A+Z"}, UnknownConditionError, "'Z'"),
        ({"combination": "A+B", "level": 0.0}, DataError, "level"),
        ({"combination": "A+B", "dose": 1.0}, DataError, "dose_key"),
        ({"combination": "A+B", "output": "counts"}, DataError, "output="),
    ],
)
def test_impossible_interactions(
    model: CFMVC, tiny_adata: ad.AnnData, asked: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        tl.interactions(tiny_adata, model, **asked)
    assert "interactions" not in tiny_adata.uns


def test_interactions_are_not_written_into_views(model: CFMVC, tiny_adata: ad.AnnData) -> None:
    with pytest.raises(DataError, match=r"view.*copy"):
        tl.interactions(tiny_adata[:20], model, "A+B")


def test_disentanglement(model: CFMVC, tiny_adata: ad.AnnData) -> None:
    table = tl.disentanglement(tiny_adata, model).set_index(["latent", "factor"])
    assert len(table) == 4 and (table["n_cells"] == 360).all()
    leak, batch = table.loc[("technical", "perturbation")], table.loc[("technical", "batch")]
    assert abs(leak["auc"] - 0.5) < 0.12 and not leak["wanted"]  # read from batch and depth alone
    assert batch["auc"] > 0.95 and batch["p_value"] == 0.01
    few = tiny_adata[:30].copy()
    few.obs["batch"], few.obs["perturbation"] = "b1", "A"
    for data, asked, words in [(few, {}, "two labels"), (tiny_adata, {"n_cells": 5}, "n_cells is 5")]:
        with pytest.raises(DataError, match=words):
            tl.disentanglement(data, model, **asked)
