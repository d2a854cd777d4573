"""Trainings on nasty data: they end with finite numbers or say what went wrong, never with NaN in silence."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from cfmvc_scvi.errors import CFMVCError, NonFiniteError

pytestmark = pytest.mark.reliability
TRAININGS = 200
FLOW_LR, VAE_LR = 2e-3, 3e-3  # defaults of the stages


def nasty_data(rng: np.random.Generator) -> tuple[ad.AnnData, list[str]]:
    """Simulate 90 cells x 20 genes with some of the plagues, and name them."""
    counts = rng.negative_binomial(1.0, 1 / (1 + rng.gamma(1.0, 2.0, 20)), (90, 20)).astype(np.float64)
    plagues = [name for name in PLAGUES if rng.random() < 0.3]
    for name in plagues:
        counts = PLAGUES[name](counts, rng)
    obs = pd.DataFrame(
        {
            "perturbation": rng.choice(["control", "A", "B"], 90, p=[0.5, 0.3, 0.2]),
            "cell_type": rng.choice(["T", "B"], 90),
            "batch": rng.choice(["1", "2"], 90),
        },
        index=[f"cell{i}" for i in range(90)],
    )
    matrix = sp.csr_matrix(np.minimum(counts, 1e6).round().astype(np.float32))
    return ad.AnnData(matrix, obs=obs, var=pd.DataFrame(index=[f"gene{i}" for i in range(20)])), plagues


def extreme_depth(counts, rng):
    return counts * 10.0 ** rng.uniform(0, 5, (len(counts), 1)).round()


def one_gene_cells(counts, rng):
    cells = rng.choice(len(counts), 30, replace=False)
    only = np.zeros_like(counts)
    only[cells, rng.integers(counts.shape[1], size=30)] = 1
    only[np.setdiff1d(np.arange(len(counts)), cells)] = counts[np.setdiff1d(np.arange(len(counts)), cells)]
    return only


def counts_of_a_million(counts, rng):
    counts[rng.random(counts.shape) < 0.02] = 1e6
    return counts


def empty_cells(counts, rng):
    counts[rng.choice(len(counts), 10, replace=False)] = 0
    return counts


def constant_genes(counts, rng):
    counts[:, rng.choice(counts.shape[1], 8, replace=False)] = rng.choice([0.0, 7.0])
    return counts


PLAGUES = {
    function.__name__.replace("_", " "): function
    for function in (extreme_depth, one_gene_cells, counts_of_a_million, empty_cells, constant_genes)
}


def is_finite(model, predicted) -> bool:
    tensors = all(torch.isfinite(value).all() for value in model.module.state_dict().values())
    history = all(np.isfinite(frame.to_numpy(dtype=float)).all() for frame in model.history.values())
    values = predicted.X.data if sp.issparse(predicted.X) else predicted.X
    return bool(tensors and history and np.isfinite(values).all())


@pytest.mark.parametrize("block", range(10))
def test_no_training_ends_with_nan_in_silence(block, make_model, quick, tried):
    rng = np.random.default_rng(block)
    for _ in range(TRAININGS // 10):
        adata, plagues = nasty_data(rng)
        factor = 30.0 if rng.random() < 0.5 else 1.0
        likelihood = str(rng.choice(["nb", "zinb", "poisson"]))
        stages = ["representation", "flow", *(["joint"] if rng.random() < 0.3 else [])]
        case = f"{plagues}, lr x {factor}, {likelihood}, {stages}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                model = make_model(adata, gene_likelihood=likelihood)
                model.train(
                    stage=stages,
                    plan_kwargs={"lr": factor * VAE_LR},
                    flow_plan_kwargs={"lr": factor * FLOW_LR},
                    joint_plan_kwargs={"lr": factor * 1e-4},
                    batch_size=32,
                    **quick,
                )
                predicted = model.predict_counterfactual(indices=range(10), perturbation="A", seed=0, output="rate")
            except NonFiniteError as error:
                assert 0 < len(str(error).splitlines()) <= 20, case
                assert "stage" in str(error), case
                tried("trainings on nasty data", stopped_and_diagnosed=1)
            except CFMVCError as error:
                assert str(error), case
                tried("trainings on nasty data", refused_by_name=1)
            else:
                assert is_finite(model, predicted), case
                tried("trainings on nasty data", ended_finite=1)
