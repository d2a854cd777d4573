"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from cfmvc_scvi import CFMVC
    from cfmvc_scvi.runtime import Bundle

# Rooms that draw from generators passed in, and so must leave numpy's global generator alone.
SEEDLESS = {"data", "flow", "nn", "shift", "observe", "metrics", "pl", "pp", "datasets", "benchmark", "laws"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if gpu:
        import torch

        if not torch.cuda.is_available():
            for item in gpu:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Keep linear algebra to one thread: for problems this small, threads wait for each other, long if others work."""
    with threadpool_limits(limits=1):
        yield


@pytest.fixture(autouse=True)
def _global_generators(request: pytest.FixtureRequest) -> Iterator[None]:
    """Start each test from one state of torch's generator, and forbid array rooms to touch numpy's."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
        torch.set_num_threads(1)  # scanpy's numba may raise it; for tests this small, threads only wait for each other
    before = np.random.get_state(legacy=False)["state"]
    yield
    after = np.random.get_state(legacy=False)["state"]
    room = Path(request.path).relative_to(Path(__file__).parent).parts[0]
    if room in SEEDLESS:
        untouched = before["pos"] == after["pos"] and np.array_equal(before["key"], after["key"])
        assert untouched, f"{room} drew from or seeded numpy's global generator; pass a numpy.random.Generator instead"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def make_counts() -> ad.AnnData:
    """360 cells x 60 genes of NB counts: 3 cell types x 2 batches x (control, A, B), 20 cells each.

    A doubles genes 0-9 in every type; B quarters genes 10-19 in T and doubles them in the other types.
    """
    rng = np.random.default_rng(1)
    n_genes, n_each = 60, 20
    types, batches, perturbations = ["B", "T", "mono"], ["b1", "b2"], ["control", "A", "B"]
    profile = rng.gamma(2.0, 1.0, n_genes)
    by_type = {name: profile * rng.lognormal(0.0, 0.7, n_genes) for name in types}
    by_batch = {name: rng.lognormal(0.0, 0.2, n_genes) for name in batches}
    rows, obs = [], []
    for cell_type in types:
        for batch in batches:
            for perturbation in perturbations:
                fold = np.ones(n_genes)
                if perturbation == "A":
                    fold[:10] = 2.0
                elif perturbation == "B":
                    fold[10:20] = 0.25 if cell_type == "T" else 2.0
                fraction = by_type[cell_type] * by_batch[batch] * fold
                mean = rng.lognormal(5.5, 0.2, (n_each, 1)) * fraction / fraction.sum()
                rows.append(rng.poisson(rng.gamma(5.0, mean / 5.0)))
                obs += [(cell_type, batch, perturbation)] * n_each
    order = rng.permutation(len(obs))
    frame = pd.DataFrame(obs, columns=["cell_type", "batch", "perturbation"]).iloc[order].astype("category")
    frame.index = pd.Index([f"cell{i}" for i in range(len(obs))])
    counts = sparse.csr_matrix(np.vstack(rows)[order].astype(np.float32))
    return ad.AnnData(counts, obs=frame, var=pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)]))


@pytest.fixture(scope="session")
def _counts_adata() -> ad.AnnData:
    return make_counts()


@pytest.fixture
def tiny_adata(_counts_adata: ad.AnnData) -> ad.AnnData:
    """A copy, for each test, of 360 cells x 60 genes; obs: perturbation (control, A, B), cell_type, batch."""
    return _counts_adata.copy()


SERVED_SETUP = {
    "batch_key": "batch",
    "labels_key": "cell_type",
    "sample_key": "sample",
    "perturbation_key": "perturbation",
    "dose_key": "dose",
    "categorical_covariate_keys": ["phase", "site"],
    "continuous_covariate_keys": ["mito"],
}


@pytest.fixture(scope="session")
def served_data() -> ad.AnnData:
    """300 cells x 80 genes: 2 cell types, 2 samples, 2 batches, A, B and A+B at two doses, covariates."""
    from cfmvc_scvi.datasets import simulated_perturbation

    adata = simulated_perturbation(
        300, 80, n_cell_types=2, n_samples=2, combinations=("A+B",), doses=(0.5, 2.0), seed=3
    )
    rng = np.random.default_rng(0)
    adata.obs["phase"] = rng.choice(["G1", "G2M", "S"], adata.n_obs)
    adata.obs["site"] = rng.choice([7, 12], adata.n_obs)
    adata.obs["mito"] = rng.random(adata.n_obs)
    return adata


@pytest.fixture(scope="session")
def fit(served_data: ad.AnnData) -> Callable[..., CFMVC]:
    """Train a small model in a second; its flow then gets weights that move cells visibly."""
    import torch

    from cfmvc_scvi import CFMVC

    def train(setup: dict[str, Any], data: ad.AnnData = served_data, **options: Any) -> CFMVC:
        torch.manual_seed(0)
        adata = data.copy()
        CFMVC.setup_anndata(adata, **setup)
        small: dict[str, Any] = {"n_intrinsic": 5, "n_hidden": 16, "flow_kwargs": {"n_hidden": 16}}
        model = CFMVC(adata, **(small | options))
        pairs = {"batch_size": 64, "steps_per_epoch": 2}
        quick = {"accelerator": "cpu", "enable_progress_bar": False, "pair_kwargs": pairs}
        model.train({"representation": 3, "flow": 1}, **quick)
        with torch.no_grad():
            for weight in model.module.flow.parameters():
                weight.copy_(0.3 * torch.randn(weight.shape))
        return model

    return train


@pytest.fixture(scope="session")
def served(fit: Callable[..., CFMVC]) -> CFMVC:
    """A model with all that can be registered; for reading only."""
    return fit(SERVED_SETUP)


@pytest.fixture(scope="session")
def torch_bundle(served: CFMVC) -> Bundle:
    """The model as a bundle, its networks in torch."""
    from cfmvc_scvi.export.onnx import as_bundle

    return as_bundle(served)


@pytest.fixture
def few(served_data: ad.AnnData) -> ad.AnnData:
    """16 cells of one cell type: control cells, and some under A at dose 2."""
    obs = served_data.obs[served_data.obs["cell_type"] == "type_0"]
    perturbed = obs.index[(obs["perturbation"] == "A") & (obs["dose"] == 2.0)]
    control = obs.index[obs["perturbation"] == "control"]
    return served_data[[*control[:12], *perturbed[:4]]].copy()


# Questions that name each option of a prediction that an exported model supports.
ASKED: dict[str, dict[str, Any]] = {
    "seen": {"perturbation": "A", "dose": 2.0},
    "combination at an unseen dose": {"perturbation": "B+A", "dose": 1.0},
    "control": {"perturbation": "control"},
    "dose alone": {"dose": 0.5},
    "cell type": {"labels": "type_1"},
    "batch": {"batch": "batch_1"},
    "everything": {"perturbation": "B", "dose": 0.5, "labels": "type_0", "batch": "batch_0"},
    "nothing": {},
    "expected counts": {"perturbation": "A", "dose": 2.0, "output": "rate"},
    "normalized": {"perturbation": "A+B", "dose": 2.0, "output": "normalized"},
    "latent": {"perturbation": "A", "dose": 0.5, "output": "latent"},
    "draws": {"perturbation": "A", "dose": 2.0, "n_samples": 2},
    "a part of the effect": {"perturbation": "A", "dose": 2.0, "strength": 0.4},
    "beyond the effect": {"perturbation": "B", "dose": 0.5, "strength": 1.3, "output": "rate"},
    "no effect": {"perturbation": "B", "strength": 0.0},
    "guidance": {"perturbation": "A", "dose": 2.0, "guidance_scale": 1.7},
    "no heterogeneity": {"perturbation": "A", "dose": 2.0, "heterogeneity": 0.0},
    "some heterogeneity": {"perturbation": "A", "dose": 2.0, "heterogeneity": 0.4, "output": "rate"},
    "euler": {"perturbation": "A", "dose": 2.0, "solver": ("euler", 7)},
    "heun": {"perturbation": "A", "dose": 2.0, "solver": ("heun", 3)},
    "rk4": {"perturbation": "A", "dose": 2.0, "solver": ("rk4", 1)},
    "midpoint": {"perturbation": "A", "dose": 2.0, "solver": ("midpoint", 20)},
    "several": {"perturbation": ["B", "A+B", "control"], "dose": 0.5},
    "several, expected and partial": {"perturbation": ["A", "B"], "output": "rate", "strength": 0.7},
    "several latents": {"perturbation": ("A", "B"), "labels": "type_1", "output": "latent"},
    "several without an effect": {"perturbation": ["A", "B"], "strength": 0.0},
}


def _with_solver(asked: dict[str, Any]) -> dict[str, Any]:
    from cfmvc_scvi.config import SolverConfig

    return {name: SolverConfig(*value) if name == "solver" else value for name, value in asked.items()}


@pytest.fixture(params=ASKED.values(), ids=ASKED)
def asked(request: pytest.FixtureRequest) -> dict[str, Any]:
    """One of the questions."""
    return _with_solver(request.param)


@pytest.fixture
def all_asked() -> dict[str, dict[str, Any]]:
    """All of them by name."""
    return {name: _with_solver(each) for name, each in ASKED.items()}


@pytest.fixture
def assert_same() -> Callable[..., None]:
    """Compare what an exported model predicts with what the model does."""
    return _assert_same


def _assert_same(answer, expected: ad.AnnData) -> None:
    """All that a prediction holds, to 1e-5 of log1p counts and of latents; names, conditions and provenance alike."""
    if expected.X is None:
        assert answer.X is None
    else:
        matrix = expected.X.toarray() if sparse.issparse(expected.X) else expected.X
        assert sparse.issparse(answer.X) == sparse.issparse(expected.X)
        np.testing.assert_allclose(np.log1p(answer.dense), np.log1p(matrix), atol=1e-5)
    assert set(answer.layers) == set(expected.layers)
    for name, layer in expected.layers.items():
        mine, theirs = (each.toarray() if sparse.issparse(each) else each for each in (answer.layers[name], layer))
        np.testing.assert_allclose(np.log1p(mine), np.log1p(theirs), atol=1e-5)
    assert set(answer.obsm) == {key for key in expected.obsm if key.startswith("X_")}
    for key, latent in answer.obsm.items():
        np.testing.assert_allclose(latent, expected.obsm[key], atol=1e-5)
    told = {"source_condition", "target_condition", "source_context", "target_context", "draw"}
    assert set(answer.obs) == told & set(expected.obs)
    for column, values in answer.obs.items():
        assert list(values) == list(expected.obs[column]), column
    assert list(answer.obs_names) == list(expected.obs_names) and list(answer.var_names) == list(expected.var_names)
    left_out = {"versions", "created"}
    mine, theirs = answer.uns["cfmvc"], expected.uns["cfmvc"]
    assert {key: mine[key] for key in mine.keys() - left_out} == {key: theirs[key] for key in theirs.keys() - left_out}
