"""The runner of other packages' models and what all adapters share, without those packages."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from lightning.pytorch.utilities.seed import isolate_rng
from scipy import sparse

from cfmvc_scvi import benchmark as bm
from cfmvc_scvi.errors import NotTrainedError

FOLDER = Path(__file__).parents[2] / "benchmarks" / "peers"


def load(name):
    spec = importlib.util.spec_from_file_location(f"peers_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


run = load("run")
adapter = load("_adapter")


@pytest.fixture
def data(tiny_adata, tmp_path):
    kept = tiny_adata[tiny_adata.obs["perturbation"] != "B"].copy()
    path = tmp_path / "data.h5ad"
    kept.write_h5ad(path)
    return path


ADAPTER = """
import _adapter
_adapter.run("Good", lambda task: (task.query.X, "counts"))
"""
COPYING = """
import os, shutil, sys
assert "PYTHONPATH" not in os.environ
fold = sys.argv[1].split("/")[-2]
with open({calls!r}, "a") as log:
    log.write(fold + "-seed" + sys.argv[sys.argv.index("--seed") + 1] + " ")
if {fails} and "-T" in fold:
    raise RuntimeError("the loss is not finite")
shutil.copy(sys.argv[2], sys.argv[3])
"""


@pytest.fixture
def peers(tmp_path, monkeypatch):
    """Peers that run in this Python; all but the first skip the slow imports of an adapter."""
    folder, environments, calls = tmp_path / "adapters", tmp_path / "environments", tmp_path / "calls.txt"
    python = environments / "here" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    scripts = {
        "_adapter": (FOLDER / "_adapter.py").read_text(),
        "good": ADAPTER,
        "copying": COPYING.format(calls=str(calls), fails=False),
        "failing": COPYING.format(calls=str(calls), fails=True),
        "slow": "import time; time.sleep(60)",
    }
    folder.mkdir()
    for name, text in scripts.items():
        (folder / f"{name}.py").write_text(text)
    names = {"good": "Good", "copying": "Copying", "failing": "Failing one", "slow": "Slow"}
    known = {key: run.Peer(method, f"{key}.py", "here") for key, method in names.items()}
    monkeypatch.setattr(run, "PEERS", {**known, "absent": run.Peer("Absent", "good.py", "nowhere")})
    monkeypatch.setattr(run, "HERE", folder)
    return environments, calls


def call(data, environments, *more, peers=("copying",)):
    store = data.parent / "store"
    start = ["--environments", str(environments), "--data", str(data), "--store", str(store)]
    run.main([*start, "--peers", *peers, *more])
    return store


def test_adapters_write_what_the_store_reads(data, peers):
    store = call(data, peers[0], "--contexts", "T", "--seeds", "3", peers=("good",))
    fold = bm.make_folds(ad.read_h5ad(data), "cell_type")[1]
    found = bm.PredictionStore(store).read("Good", fold, 3, ad.read_h5ad(data).var_names)
    query = ad.read_h5ad(store / "folds" / fold.id / "query.h5ad")
    assert found.scale == "counts" and found.cpu_seconds > 0
    np.testing.assert_array_equal(found.values.toarray(), query.X.toarray())
    about = ad.read_h5ad(store / "predictions" / "Good" / "001-A-T-seed3.h5ad").uns["cfmvc_benchmark"]
    assert {"method": "Good", "condition": "A", "context": "T", "seed": 3}.items() <= about.items()


def test_finished_runs_are_skipped_and_missing_ones_made(data, peers):
    store = call(data, peers[0], "--contexts", "B", "T")
    assert peers[1].read_text().split() == ["000-A-B-seed0", "001-A-T-seed0"]
    call(data, peers[0], "--seeds", "0", "1")
    later = ["002-A-mono-seed0", "000-A-B-seed1", "001-A-T-seed1", "002-A-mono-seed1"]
    assert peers[1].read_text().split()[2:] == later
    assert len(list((store / "predictions" / "Copying").iterdir())) == 6


def test_a_failure_is_recorded_with_its_reason_and_tried_again_on_request_only(data, peers):
    store = call(data, peers[0], peers=("failing", "absent"))
    runs = json.loads((store / "peers.json").read_text())["runs"]
    reasons = {name: entry["reason"] for name, entry in runs.items() if entry["reason"]}
    assert reasons.pop("Failing one/001-A-T-seed0") == "RuntimeError: the loss is not finite"
    assert len(reasons) == 3 and all(reason.startswith("no environment 'nowhere'") for reason in reasons.values())
    n_calls = len(peers[1].read_text().split())
    call(data, peers[0], peers=("failing",))
    assert len(peers[1].read_text().split()) == n_calls
    call(data, peers[0], "--retry", peers=("failing",))
    assert peers[1].read_text().split()[n_calls:] == ["001-A-T-seed0"]


def test_a_run_that_takes_too_long_is_ended(data, peers):
    store = call(data, peers[0], "--contexts", "B", "--timeout", "1", peers=("slow",))
    (entry,) = json.loads((store / "peers.json").read_text())["runs"].values()
    assert entry["reason"] == "took longer than 1 s" and entry["seconds"] < 30


def test_other_data_in_the_same_store_are_refused(data, peers, tiny_adata):
    call(data, peers[0])
    other = tiny_adata[tiny_adata.obs["perturbation"] != "A"].copy()
    other.write_h5ad(data)
    with pytest.raises(SystemExit, match="other data"):
        call(data, peers[0])


def test_every_peer_has_an_adapter_and_pinned_requirements():
    for peer in load("run").PEERS.values():
        assert f'_adapter.run("{peer.method}", predict' in (FOLDER / peer.adapter).read_text()
        lines = (FOLDER / f"requirements-{peer.environment}.txt").read_text().splitlines()
        pins = [line for line in lines if line and not line.startswith("#")]
        assert all("==" in line and "/" not in line for line in pins)
        assert any(line.startswith("torch==2.13.0") for line in pins) or peer.environment == "cellflow"


def test_our_own_adapter_trains_as_long_as_it_is_told(tiny_adata, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    control = tiny_adata[tiny_adata.obs["perturbation"] == "control"].copy()
    task = adapter.Task(tiny_adata.copy(), control, "A", "B", ["cell_type"], "control", 0, budget=1)
    trained, ours = {}, load("run_cfmvc")
    train = ours.CFMVC.train
    monkeypatch.setattr(ours.CFMVC, "train", lambda self, epochs, **options: trained.update(epochs))
    with isolate_rng():  # an adapter has a process, and its generators, to itself
        with pytest.raises(NotTrainedError):
            ours.predict(task)
        monkeypatch.setattr(ours.CFMVC, "train", train)
        values, scale = ours.predict(task)
    ours.scvi.settings.seed = None
    assert trained == {"representation": 8, "flow": 1}
    assert scale == "counts" and values.shape == control.shape


def test_sampled_counts_have_the_moments_of_the_zero_inflated_negative_binomial(rng):
    mean = np.tile([0.5, 4.0, 20.0], (40_000, 1))
    theta, zeros = np.array([1.0, 2.0, 5.0]), np.tile([0.0, 0.3, 0.0], (40_000, 1))
    counts = adapter.sample_counts(mean, theta, rng, zeros).toarray()
    kept = 1 - zeros[0]
    variance = kept * (mean[0] + mean[0] ** 2 / theta) + kept * zeros[0] * mean[0] ** 2
    np.testing.assert_allclose(counts.mean(axis=0), kept * mean[0], rtol=0.03)
    np.testing.assert_allclose(counts.var(axis=0), variance, rtol=0.06)
    assert np.all(counts == np.rint(counts))


def test_log_normalize_is_the_benchmarks_own(tiny_adata):
    counts = sparse.csr_matrix(tiny_adata.X)
    own = adapter.log_normalize(counts).toarray()
    np.testing.assert_allclose(own, bm.Prediction(counts).log_values(), rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda train, query: query.obs.__setitem__("target_perturbation", ["A", "B"] * 20), "one condition"),
        (lambda train, query: query.obs.__setitem__("cell_type", ["B", "T"] * 20), "one context"),
        (lambda train, query: setattr(train, "X", train.X * 0.5), "raw counts"),
        (lambda train, query: setattr(query, "var_names", [f"x{i}" for i in range(60)]), "same genes"),
    ],
)
def test_adapters_refuse_files_that_do_not_fit(tiny_adata, tmp_path, change, message):
    train = tiny_adata
    query = tiny_adata[(tiny_adata.obs["cell_type"] == "B") & (tiny_adata.obs["perturbation"] == "control")].copy()
    query.obs = query.obs.astype(str)
    query.obs["target_perturbation"] = "A"
    change(train, query)
    train.write_h5ad(tmp_path / "train.h5ad")
    query.write_h5ad(tmp_path / "query.h5ad")
    args = run.argparse.Namespace(
        train=str(tmp_path / "train.h5ad"),
        query=str(tmp_path / "query.h5ad"),
        context="cell_type",
        control="control",
        seed=0,
    )
    with pytest.raises(ValueError, match=message):
        adapter.read_task(args)


@pytest.mark.peers
@pytest.mark.parametrize("key", list(run.PEERS))
def test_the_real_peers_predict(tiny_adata, tmp_path, key):
    """Each real peer trains on 240 cells; CFMVC_PEER_ENVIRONMENTS names the directory of the environments."""
    peer = run.PEERS[key]
    python = Path(os.environ.get("CFMVC_PEER_ENVIRONMENTS", "")) / peer.environment / "bin" / "python"
    if "CFMVC_PEER_ENVIRONMENTS" not in os.environ or not python.exists():
        pytest.skip(f"CFMVC_PEER_ENVIRONMENTS has no environment '{peer.environment}'")
    kept = tiny_adata[tiny_adata.obs["perturbation"] != "B"].copy()
    fold = bm.make_folds(kept, "cell_type")[0]
    (place,) = bm.export_folds(kept, [fold], tmp_path)
    out = tmp_path / "out.h5ad"
    command = [python.absolute(), FOLDER / peer.adapter, place / "train.h5ad", place / "query.h5ad", out]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    found = ad.read_h5ad(out)
    assert found.shape == (int(fold.query.sum()), kept.n_vars)
    assert list(found.var_names) == list(kept.var_names)
    assert found.uns["cfmvc_benchmark"]["method"] == peer.method
    assert np.isfinite(found.X.toarray()).all()
