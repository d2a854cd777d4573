"""Fixtures that every room's tests share; data here do not come from the package's own simulator."""

import sys
from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

# Rooms that draw from generators passed in, and so must leave numpy's global generator alone.
SEEDLESS = {"data", "flow", "nn", "shift", "observe", "metrics", "pl", "pp", "datasets", "benchmark", "laws"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if gpu:
        import torch

        if not torch.cuda.is_available():
            for item in gpu:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


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
