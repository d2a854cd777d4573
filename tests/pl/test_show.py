"""Who shows a figure: what makes it, by default, and never what only draws on one."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from cfmvc_scvi import pl

HISTORY = {"elbo_train": pd.DataFrame({"elbo_train": [3.0, 2.0]})}
CELLS = AnnData(obs=pd.DataFrame({"k": ["a", "b"]}, index=["c0", "c1"]), obsm={"X_umap": np.eye(2)})
ONE = {
    "calibration": lambda **how: pl.calibration([0.5, 0.9], [0.4, 0.8], **how),
    "conditions": lambda **how: pl.conditions(pd.DataFrame(np.eye(2), index=["a", "b"]), **how),
    "delta": lambda **how: pl.delta(np.array([0.0, 1.0]), np.array([0.0, 1.0]), **how),
    "distributions": lambda **how: pl.distributions({"control": np.eye(2)}, ["g0", "g1"], **how),
    "embedding": lambda **how: pl.embedding(np.eye(2), ["a", "b"], **how),
    "similarity": lambda **how: pl.similarity(pd.DataFrame([[0.0, 1.0], [1.0, 0.0]], index=["a", "b"]), **how),
    "tissue": lambda **how: pl.tissue(np.eye(2), [0.0, 1.0], **how),
    "trajectory": lambda **how: pl.trajectory(np.eye(2), [0.0, 1.0], ["g0", "g1"], **how),
    "trust": lambda **how: pl.trust([0.1, 0.9], [1.0, 0.0], **how),
}
SEVERAL = {
    "history": lambda **how: pl.history(HISTORY, **how),
    "latent": lambda **how: pl.latent(CELLS, "k", **how),
}


@pytest.fixture
def shown(monkeypatch):
    calls = []
    monkeypatch.setattr(plt, "show", lambda: calls.append(True))
    return calls


@pytest.mark.parametrize("draw", [*ONE.values(), *SEVERAL.values()], ids=[*ONE, *SEVERAL])
@pytest.mark.parametrize("interactive", [False, True])
def test_a_new_figure_is_shown_where_figures_are(draw, interactive, shown):
    with plt.ion() if interactive else plt.ioff():
        draw()
    assert len(shown) == interactive


@pytest.mark.parametrize("name", [*ONE, *SEVERAL])
def test_the_callers_axes_are_left_to_the_caller(name, shown):
    ax = plt.subplots()[1]
    draw, given = (ONE[name], {"ax": ax}) if name in ONE else (SEVERAL[name], {"axes": [ax]})
    with plt.ion():
        draw(**given)
    assert not shown
    draw(**given, show=True)
    assert shown
