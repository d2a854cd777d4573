"""Batches that the intrinsic latent should not know, and depths that tell the perturbation to the technical one."""

from collections.abc import Callable

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from cfmvc_scvi import CFMVC, tl
from cfmvc_scvi.config import SimulationConfig
from cfmvc_scvi.datasets import simulated_perturbation
from cfmvc_scvi.errors import DataError

LATENTS = {"max_epochs": {"representation": 30}, "stage": "representation"}


@pytest.fixture(scope="module")
def data() -> ad.AnnData:
    """Batches far apart, and cells that lose 60 % of their counts under the perturbation."""
    data = simulated_perturbation(1200, 150, perturbations=("A",), seed=1, config=SimulationConfig(batch_sd=0.6))
    counts, treated = data.X.toarray().astype(int), (data.obs["perturbation"] == "A").to_numpy()
    counts[treated] = np.random.default_rng(0).binomial(counts[treated], 0.4)
    data.X = sparse.csr_matrix(counts.astype(np.float32))
    return data


@pytest.fixture(scope="module")
def report(data: ad.AnnData, fitted: Callable[..., CFMVC]) -> Callable[..., pd.DataFrame]:
    def report(**weights: float) -> pd.DataFrame:
        model = fitted(data, training={**LATENTS, "plan_kwargs": weights})
        assert set(weights) == {
            f"lambda_{name}" for name in ("batch", "perturbation") if f"hsic_{name}_train" in model.history
        }
        return tl.disentanglement(data.copy(), model).set_index(["latent", "factor"])

    return report


@pytest.fixture(scope="module")
def usual(report: Callable[..., pd.DataFrame]) -> pd.DataFrame:
    return report()


@pytest.mark.slow
def test_the_batch_leaves_the_intrinsic_latent(report: Callable[..., pd.DataFrame], usual: pd.DataFrame) -> None:
    table = report(lambda_batch=100.0)
    before, after = (of.loc[("intrinsic", "batch")] for of in (usual, table))
    assert before["auc"] > 0.95 and before["hsic"] > 0.15
    assert after["auc"] < 0.8 and after["hsic"] < 0.03
    known = [of.loc[("intrinsic", "perturbation"), "auc"] for of in (usual, table)]
    assert known[1] > known[0] - 0.05 > 0.8  # what it should know it keeps


@pytest.mark.slow
def test_the_perturbation_leaves_the_technical_latent(report: Callable[..., pd.DataFrame], usual: pd.DataFrame) -> None:
    table = report(lambda_perturbation=100.0)
    before, after = (of.loc[("technical", "perturbation")] for of in (usual, table))
    assert before["hsic"] > 0.2 and before["p_value"] < 0.05
    assert after["hsic"] < 0.02 and after["p_value"] > 0.05
    assert table.loc[("technical", "batch"), "auc"] > 0.95


@pytest.mark.parametrize(
    ("setup", "options", "weights", "words"),
    [
        ({}, {}, {"lambda_batch": -1.0}, "lambda_batch is -1.*finite number >= 0"),
        ({}, {}, {"lambda_perturbation": float("nan")}, "lambda_perturbation is nan"),
        ({"batch_key": None}, {}, {"lambda_batch": 1.0}, "one batch.*batch_key="),
        ({"perturbation_key": None}, {}, {"lambda_perturbation": 1.0}, "no perturbations.*perturbation_key="),
        ({}, {"n_technical": 0}, {"lambda_perturbation": 1.0}, "no technical latent"),
        ({"labels_key": "own"}, {}, {"lambda_batch": 1.0}, "4 cells of one label and condition.*batch_size"),
        ({"labels_key": "own"}, {}, {"lambda_perturbation": 1.0}, "4 cells of one label and batch"),
    ],
)
def test_weights_that_would_do_nothing_are_refused(
    setup: dict, options: dict, weights: dict, words: str, data: ad.AnnData, fitted: Callable[..., CFMVC]
) -> None:
    few = data[:60].copy()
    few.obs["own"] = "label_" + few.obs.groupby("perturbation", observed=True).cumcount().mod(20).astype(str)
    training = {"max_epochs": 1, "stage": "representation", "plan_kwargs": weights}
    with pytest.raises(DataError, match=words):
        fitted(few, setup, training, **options)
