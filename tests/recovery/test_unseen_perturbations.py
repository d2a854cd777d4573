"""Perturbations without cells: features that say something help, and features that say nothing do no harm."""

from collections.abc import Callable

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from cfmvc_scvi import CFMVC
from cfmvc_scvi.metrics import log_normalize

LEVELS = {"max_epochs": {"representation": 1}, "stage": "representation"}
N_PERTURBATIONS, N_GENES, N_CELLS = 24, 120, 40
UNSEEN = [f"P{number}" for number in range(18, 24)]


@pytest.fixture(scope="module", params=[0, 1])
def screen(request: pytest.FixtureRequest) -> tuple[ad.AnnData, pd.DataFrame, np.ndarray]:
    """Cells of two types; what perturbations share, three pathways that the features name, and true changes."""
    rng = np.random.default_rng(request.param)
    return screened(rng.normal(size=(N_PERTURBATIONS, 3)), 0.4, rng)


def screened(
    features: np.ndarray, shared: float, rng: np.random.Generator
) -> tuple[ad.AnnData, pd.DataFrame, np.ndarray]:
    """Cells, features and true changes where each feature is how far a perturbation changes a pathway.

    True changes of mean log1p CP10k `(types, perturbations, genes)` are those of a thousand cells of each.
    """
    shape = (features.shape[1], N_GENES)
    pathways = rng.normal(0, 0.6, shape) * (rng.random(shape) < 0.3)
    effects = features @ pathways + rng.normal(0, shared, N_GENES) * (rng.random(N_GENES) < 0.3)
    base, counts, obs = rng.gamma(1.0, 1.0, N_GENES) + 0.05, [], []
    truth = np.empty((2, N_PERTURBATIONS, N_GENES))
    for number in range(2):
        own = base * rng.lognormal(0, 0.3, N_GENES)
        draws = [draw(own * np.exp(effect), 1000, rng) for effect in (np.zeros(N_GENES), *effects)]
        means = np.stack([log_normalize(each).mean(axis=0) for each in draws])
        truth[number] = means[1:] - means[0]
        for name, each in zip(["control", *names()], draws, strict=True):
            n = 4 * N_CELLS if name == "control" else N_CELLS
            counts.append(each[:n])
            obs += [(f"type_{number}", name)] * n
    frame = pd.DataFrame(obs, columns=["cell_type", "perturbation"], index=[f"cell_{i}" for i in range(len(obs))])
    adata = ad.AnnData(sparse.csr_matrix(np.vstack(counts).astype(np.float32)), obs=frame.astype("category"))
    adata.var_names = [f"gene_{i}" for i in range(N_GENES)]
    return adata, pd.DataFrame(features, index=names()), truth


def names() -> list[str]:
    return [f"P{number}" for number in range(N_PERTURBATIONS)]


def draw(level: np.ndarray, n_cells: int, rng: np.random.Generator) -> np.ndarray:
    depth = rng.lognormal(np.log(800), 0.3, (n_cells, 1))
    return rng.poisson(rng.gamma(5.0, level / level.sum() * depth / 5.0))


def gain(screen: tuple, features: pd.DataFrame, fitted: Callable[..., CFMVC]) -> np.ndarray:
    """Pearson Delta of unseen perturbations in both types, less that of the mean of the others as measured."""
    adata, _, truth = screen
    cells = adata[~adata.obs["perturbation"].isin(UNSEEN)].copy()
    cells.uns["features"] = features
    model = fitted(cells, {"batch_key": None, "perturbation_embeddings_key": "features"}, LEVELS, n_hidden=16)
    gains = []
    for number, context in enumerate(("type_0", "type_1")):
        mine = cells[cells.obs["cell_type"] == context]
        levels = {name: log_normalize(mine[mine.obs["perturbation"] == name].X).mean(axis=0) for name in cells_of(mine)}
        others = np.mean([level for name, level in levels.items() if name != "control"], axis=0) - levels["control"]
        for name in UNSEEN:
            effect = model.get_effect(name)
            found = effect[effect["context"] == context].set_index("gene")["delta"][adata.var_names]
            aim = truth[number, names().index(name)]
            gains.append(np.corrcoef(found, aim)[0, 1] - np.corrcoef(others, aim)[0, 1])
    return np.array(gains)


def cells_of(cells: ad.AnnData) -> list[str]:
    return sorted(set(cells.obs["perturbation"]))


def test_informative_features_beat_the_mean_of_the_others(screen: tuple, fitted: Callable[..., CFMVC]) -> None:
    assert gain(screen, screen[1], fitted).mean() > 0.1


def test_features_that_say_nothing_cost_nothing(screen: tuple, fitted: Callable[..., CFMVC]) -> None:
    rng = np.random.default_rng(5)
    for noise in (rng.permutation(screen[1].to_numpy()), rng.normal(size=(N_PERTURBATIONS, 10))):
        assert gain(screen, pd.DataFrame(noise, index=names()), fitted).mean() > -0.02


@pytest.mark.parametrize("seed", [0, 1])
def test_without_features_the_few_strong_ones_are_predicted_nearly_as_well(
    seed: int, fitted: Callable[..., CFMVC]
) -> None:
    """As by the mean of the others, which is made for them: what all but these share would cost .15 and more."""
    rng = np.random.default_rng(seed)
    strong = [0, 1, 2, 3, 18, 19]  # the last two are not seen
    strength = np.zeros((N_PERTURBATIONS, 1))
    strength[strong, 0] = rng.uniform(0.7, 1.5, len(strong))
    adata, table, truth = screened(strength, 0.2, rng)
    table.loc[UNSEEN] = np.nan
    found = gain((adata, table, truth), table, fitted).reshape(2, len(UNSEEN))
    assert found.mean() > -0.02
    assert found[:, :2].mean() > -0.06
