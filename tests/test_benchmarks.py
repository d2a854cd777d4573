"""Scripts of `benchmarks` that look into a model or are run by hand alone: that they still run."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
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


def test_time_to_an_energy_is_of_the_cheapest_training_that_reaches_it(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    script = runpy.run_path(str(FOLDER / "time_to_energy.py"))
    rows = {"mean shift": (0.3, 0.1), "pooled others": (0.5, 0.1), "ceiling": (0.0, np.nan)}
    energies = {"CFMVC": (0.4, 0.2, 0.1, 0.12), "CellFlow": (0.9, 0.8, 0.6, 0.35, 0.25, 0.2), "scGen": (0.7,) * 6}
    for method, (_, budgets) in script["LADDERS"].items():
        for budget, energy in zip(budgets, energies[method], strict=True):
            rows[f"{method}_{budget}"] = energy, 5.0 + budget
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["energy", "cpu_seconds"])
    found = script["results"](table)
    assert found["goals"] == {"best simple baseline": 0.3, "CFMVC": 0.1, "CellFlow": 0.2, "scGen": 0.7}
    assert found["cpu_seconds_to"]["best simple baseline"] == {"CFMVC": 7.0, "CellFlow": 2005.0, "scGen": None}
    assert found["cpu_seconds_to"]["CellFlow"] == {"CFMVC": 7.0, "CellFlow": 4005.0, "scGen": None}
    assert found["cpu_seconds_to"]["CFMVC"] == {"CFMVC": 9.0, "CellFlow": None, "scGen": None}
    text = script["text"](json.loads(json.dumps(found)))
    assert "| CellFlow, 4000 | 0.200 | 4005 |" in text and "not reached" in text
