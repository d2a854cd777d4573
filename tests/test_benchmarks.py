"""Scripts of `benchmarks` that look into a model or are run by hand alone: that they still run."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from cfmvc_scvi.datasets import simulated_perturbation

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def cells():
    return simulated_perturbation(400, 60, n_cell_types=3, seed=0)


def test_calibration_scores_every_pair_that_another_context_tells_of(cells, tmp_path, monkeypatch, capsys):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    monkeypatch.setattr(sys, "argv", ["calibration.py", str(tmp_path / "cells.h5ad")])
    runpy.run_path(str(FOLDER / "calibration.py"), run_name="__main__")
    seen = cells.obs.groupby(["perturbation", "cell_type"], observed=True).size()
    assert f"{(seen.drop('control') >= 10).sum()} pairs" in capsys.readouterr().out


def test_simulated_models_are_given_the_true_mean(cells):
    simulated = runpy.run_path(str(FOLDER / "simulated.py"))
    model = simulated["trained"](cells, 0, means_only=True)
    knowing = simulated["with_true_mean"](model, cells, "A")
    table = knowing.get_effect("A").pivot(index="context", columns="gene", values="delta")[list(cells.var_names)]
    for context, effect in table.iterrows():
        kinds = (simulated["mean_log"](simulated["group"](cells, kind, context).X) for kind in ("A", "control"))
        np.testing.assert_allclose(effect, np.subtract(*kinds), atol=1e-6)
