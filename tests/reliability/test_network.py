"""Neither importing the package nor training, saving and predicting opens a connection."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.reliability

BLOCKED = """
import socket
import sys

def refuse(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        sys.stderr.write(f"NETWORK: {event} {args}\\n")
        raise PermissionError("the network is blocked")

sys.addaudithook(refuse)
"""
WORK = """
import importlib
import pkgutil
import cfmvc_scvi

for module in pkgutil.walk_packages(cfmvc_scvi.__path__, "cfmvc_scvi."):
    if module.name != "cfmvc_scvi.app._page":  # a script, which Streamlit runs
        try:
            importlib.import_module(module.name)
        except ImportError as error:  # an extra that is not installed
            assert not str(error.name).startswith("cfmvc_scvi"), error
adata = cfmvc_scvi.datasets.simulated_perturbation(n_cells=200, n_genes=30, seed=0)
cfmvc_scvi.CFMVC.setup_anndata(adata, labels_key="cell_type", perturbation_key="perturbation")
model = cfmvc_scvi.CFMVC(adata, n_hidden=8)
model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False, pair_kwargs={"steps_per_epoch": 2})
model.save("model")
model = cfmvc_scvi.CFMVC.load("model", adata=adata, accelerator="cpu")
model.predict_counterfactual(indices=[0, 1], perturbation="A", seed=0)
print("done")
"""


def run(code, path):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=path, check=False)


def test_no_connection_is_opened(tmp_path, tried):
    result = run(BLOCKED + WORK, tmp_path)
    assert "NETWORK" not in result.stderr
    assert result.stdout.strip().endswith("done"), result.stderr[-2000:]
    tried("connections while the package is imported, trains, saves, loads and predicts", opened=0)


def test_the_block_would_have_been_seen(tmp_path):
    result = run(BLOCKED + "socket.create_connection(('localhost', 9))", tmp_path)
    assert "NETWORK: socket.getaddrinfo" in result.stderr
    assert result.returncode != 0
