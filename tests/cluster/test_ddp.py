"""Two processes train one model, as one process would."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cfmvc_scvi import CFMVC
from cfmvc_scvi.datasets import simulated_perturbation

pytestmark = pytest.mark.cluster

SCRIPT = Path(__file__).with_name("train.py")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders of a training by one process and by two, that torchrun starts."""
    folders = {}
    for n_processes in (1, 2):
        folders[n_processes] = folder = tmp_path_factory.mktemp(f"processes{n_processes}")
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"] if n_processes > 1 else []
        command = [sys.executable, *launcher, SCRIPT, folder, str(n_processes)]
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=600)
    return folders


def test_all_processes_hold_the_same_weights_and_split(runs: dict[int, Path]) -> None:
    first, second = (json.loads((runs[2] / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first["weights"] == second["weights"]
    assert first["split"] == second["split"] == json.loads((runs[1] / "rank0.json").read_text())["split"]
    assert first["stages"] == second["stages"] == ["representation", "flow", "joint"]


def test_the_first_process_keeps_the_history_and_stops_early(runs: dict[int, Path]) -> None:
    first, second = (json.loads((runs[2] / f"rank{rank}.json").read_text())["history"] for rank in (0, 1))
    alone = json.loads((runs[1] / "rank0.json").read_text())["history"]
    assert set(first) == set(alone) and not second
    assert 3 <= first["validation_loss"] < 60 and first["flow_train_loss"] <= 4


def test_predictions_are_those_of_one_process(runs: dict[int, Path]) -> None:
    adata = simulated_perturbation(1200, 80, n_cell_types=2, perturbations=("A",), combinations=False, seed=0)
    control = adata[adata.obs["perturbation"] == "control"].copy()
    one, two = (
        CFMVC.load(folder / "model", adata=False, accelerator="cpu").predict_counterfactual(
            control, perturbation="A", seed=0
        )
        for folder in runs.values()
    )
    for kind in control.obs["cell_type"].unique():
        cells = (control.obs["cell_type"] == kind).to_numpy()
        means = [np.log1p(answer.X[cells].toarray()).mean(axis=0) for answer in (one, two)]
        before = np.log1p(control.X[cells].toarray()).mean(axis=0)
        effect = np.abs(means[0] - before).mean()
        assert np.abs(means[0] - means[1]).mean() < 0.1 * effect
    per_cell = [np.log1p(answer.X.toarray()) - np.log1p(control.X.toarray()) for answer in (one, two)]
    assert np.corrcoef(per_cell[0].ravel(), per_cell[1].ravel())[0, 1] > 0.7
