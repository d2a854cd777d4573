"""What latents know of labels, where that is planted."""

import numpy as np
import pytest

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.metrics import hsic, latent_auc, mutual_information_gap


def test_what_is_planted_is_found(rng: np.random.Generator) -> None:
    label = rng.integers(0, 3, 300)
    noise = rng.standard_normal((300, 4))
    known = noise + 6.0 * (label[:, None] == np.arange(4))
    assert (
        latent_auc(known, label, rng) > 0.95 and hsic(known, label, rng)[0] > 0.5 and hsic(known, label, rng)[1] == 0.01
    )
    assert abs(latent_auc(noise, label, rng) - 0.5) < 0.08
    assert hsic(noise, label, rng)[0] < 0.05
    p_values = [hsic(rng.standard_normal((60, 2)), rng.integers(0, 2, 60), rng)[1] for _ in range(20)]
    assert min(p_values) > 0.005 and sum(p <= 0.05 for p in p_values) <= 4


def test_a_trace_that_is_not_linear(rng: np.random.Generator) -> None:
    label = rng.integers(0, 2, 300)
    ring = rng.standard_normal((300, 2))
    ring *= (1 + 3 * label[:, None]) / np.linalg.norm(ring, axis=1, keepdims=True)
    assert latent_auc(ring, label, rng) < 0.65 and hsic(ring, label, rng)[1] == 0.01


def test_the_gap_is_of_one_dimension_that_knows(rng: np.random.Generator) -> None:
    label = rng.integers(0, 2, 400)
    alone = rng.standard_normal((400, 3))
    alone[:, 1] += 10 * label
    shared = alone.copy()
    shared[:, 0] += 10 * label
    assert mutual_information_gap(alone, label, rng) > 0.85
    assert mutual_information_gap(shared, label, rng) < 0.15
    assert mutual_information_gap(rng.standard_normal((400, 3)), label, rng) < 0.1
    assert mutual_information_gap(alone[:, 1:2], label, rng) > 0.85


@pytest.mark.parametrize(
    ("labels", "words"),
    [(np.zeros(20), "1 labels"), (np.arange(20) > 17, "1 have fewer"), (np.zeros(19), "for 20 cells")],
)
def test_what_cannot_be_told_apart(labels: np.ndarray, words: str, rng: np.random.Generator) -> None:
    for measure in (latent_auc, hsic, mutual_information_gap):
        with pytest.raises(DataError, match=words):
            measure(rng.standard_normal((20, 2)), labels, rng)
