"""A donor of whom training saw no cell is mapped by its control cells alone, and its treated cells are predicted."""

from collections.abc import Callable

import numpy as np
import pytest

from cfmvc_scvi import CFMVC
from cfmvc_scvi.datasets import simulated_perturbation

TRAINING = {"accelerator": "cpu", "enable_progress_bar": False}


@pytest.mark.slow
def test_treated_cells_of_a_new_batch(
    fitted: Callable[..., CFMVC], true_effect: Callable[..., np.ndarray], predicted_effect: Callable[..., np.ndarray]
) -> None:
    """The mean effect correlates more than .8 with the truth, and less than .1 worse than in batches that were seen."""
    data = simulated_perturbation(3000, 200, n_batches=3, perturbations=("A",), seed=1)
    new = (data.obs["batch"] == "batch_2").to_numpy()
    reference = fitted(data[~new])
    control = (data.obs["perturbation"] == "control").to_numpy()
    query = CFMVC.load_query_data(data[new & control].copy(), reference, accelerator="cpu")
    query.train(**TRAINING, plan_kwargs={"weight_decay": 0.0})
    found = {}
    for name, model, cells in (
        ("new", query, data[new & control].copy()),
        ("seen", reference, data[~new & control].copy()),
    ):
        truth = true_effect(cells, "A").mean(axis=0)
        found[name] = np.corrcoef(predicted_effect(model, cells, perturbation="A").mean(axis=0), truth)[0, 1]
    assert found["new"] > max(0.8, found["seen"] - 0.1), found
    # the mapping takes the batch out: cells of the new batch lie among those of the old ones
    z = [
        each.get_latent_representation(cells) for each, cells in ((query, query.adata), (reference, data[~new].copy()))
    ]
    apart = np.linalg.norm(z[0].mean(axis=0) - z[1][control[~new]].mean(axis=0))
    assert apart < 0.5 * np.sqrt(z[1].var(axis=0).sum())
