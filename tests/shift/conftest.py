"""Profiles drawn from the model that `posterior_level` inverts."""

import numpy as np
import pytest


def draw_profiles(n_contexts: int, n_genes: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Control and perturbed levels of related contexts, each with its sampling variance, (contexts, genes)."""
    rng = np.random.default_rng(seed)
    noise = rng.gamma(2.0, 0.005, (4, n_contexts, n_genes))
    level = rng.gamma(1.0, 0.8, n_genes) + rng.normal(0, 0.3, (n_contexts, n_genes))
    effect = rng.normal(0, 0.6, n_genes) * (rng.random(n_genes) < 0.4)
    after = level + effect + rng.normal(0, 0.15, (n_contexts, n_genes))
    control = level + np.sqrt(noise[0]) * rng.normal(size=level.shape)
    perturbed = after + np.sqrt(noise[1]) * rng.normal(size=level.shape)
    return control, noise[0], perturbed, noise[1]


def draw_counts(rate: np.ndarray, n_cells: int, depth: float, rng: np.random.Generator) -> np.ndarray:
    """NB counts (cells, genes) of dispersion 3 around `rate` (CP10k), at log-normal depths."""
    depths = depth * rng.lognormal(0, 0.3, (n_cells, 1))
    return rng.poisson(rng.gamma(3.0, rate * depths / 3e4))


@pytest.fixture
def profiles():
    return draw_profiles


@pytest.fixture
def nb_counts():
    return draw_counts
