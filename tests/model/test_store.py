"""Answers written chunk by chunk: the same as in memory, also after a crash, and of several perturbations at once."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from cfmvc_scvi import CFMVC
from cfmvc_scvi.errors import DataError, UnsupportedError
from cfmvc_scvi.model import prediction
from cfmvc_scvi.model.plan import Observation

READ = {".h5ad": ad.read_h5ad, ".zarr": ad.read_zarr}


def assert_equal(a: ad.AnnData, b: ad.AnnData) -> None:
    """Compare everything but the time and the solver's evaluations, of which a resumed run needs fewer."""
    pd.testing.assert_frame_equal(a.obs, b.obs, check_categorical=False)
    pd.testing.assert_frame_equal(a.var, b.var)
    assert set(a.layers) == set(b.layers) and set(a.obsm) == set(b.obsm) and (a.X is None) == (b.X is None)
    pairs = [(a.obsm[key], b.obsm[key]) for key in a.obsm] + [(a.layers[key], b.layers[key]) for key in a.layers]
    for left, right in pairs if a.X is None else [*pairs, (a.X, b.X)]:
        assert type(left) is type(right) and left.dtype == right.dtype
        dense = (x.toarray() if sparse.issparse(x) else x for x in (left, right))
        assert np.array_equal(*dense)


@pytest.mark.parametrize("suffix", READ)
@pytest.mark.parametrize("output", ["counts", "normalized", "latent"])
@pytest.mark.parametrize("perturbation", ["A", ["B", "A+B", "control"]])
def test_on_disk_as_in_memory(
    trained: CFMVC, tmp_path: Path, suffix: str, output: Any, perturbation: str | list[str]
) -> None:
    asked: dict[str, Any] = {"perturbation": perturbation, "output": output, "seed": 0, "trust": True}
    rows = np.arange(trained.adata.n_obs)[::-3]
    expected = trained.predict_counterfactual(indices=rows, **asked, batch_size=50)
    out = tmp_path / f"answer{suffix}"
    returned = trained.predict_counterfactual(indices=rows, **asked, batch_size=50, out=out)
    found = READ[suffix](out)
    assert_equal(found, expected)
    pd.testing.assert_frame_equal(returned.obs, expected.obs)
    assert returned.X is None and not returned.layers and not returned.obsm
    assert list(tmp_path.iterdir()) == [out]
    assert found.uns["cfmvc"]["arguments"]["seed"] == 0 == returned.uns["cfmvc"]["arguments"]["seed"]


def test_several_perturbations_as_each_alone(trained: CFMVC) -> None:
    names = ["control", "A", "A+B"]
    together = trained.predict_counterfactual(perturbation=names, seed=1, trust=True)
    for name in names:
        alone = trained.predict_counterfactual(perturbation=name, seed=1, trust=True)
        assert (together.layers[name] != alone.X).nnz == 0
        np.testing.assert_array_equal(together.obsm[f"X_{name}"], alone.obsm["X_cfmvc_counterfactual"])
        assert (together.obs[f"trust_{name}"] == alone.obs["trust"]).all()
    assert "target_condition" not in together.obs and together.X is None
    own = (trained.adata.obs["perturbation"] == "A").to_numpy()
    assert (together.layers["A"][own] != trained.adata.X[own]).nnz == 0


def test_a_crash_costs_one_chunk(trained: CFMVC, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, asked = tmp_path / "answer.h5ad", {"perturbation": "A", "batch_size": 50}
    batches: list[int] = []

    def breaks(self: Observation, cells: Any, *args: Any) -> Any:
        if len(batches) == 3:
            raise KeyboardInterrupt
        batches.append(len(cells.names))
        return whole(self, cells, *args)

    whole = Observation.matrix
    monkeypatch.setattr(Observation, "matrix", breaks)
    with pytest.raises(KeyboardInterrupt):
        trained.predict_counterfactual(**asked, out=out)  # draws a seed
    assert not out.exists() and len(list(tmp_path.glob("answer.h5ad.partial/0*.h5"))) == 3
    monkeypatch.setattr(Observation, "matrix", lambda *args: batches.append(0) or whole(*args))
    (tmp_path / "answer.h5ad.partial" / "000001.h5").unlink()  # chunks need not be missing in one row
    result = trained.predict_counterfactual(**asked, out=out)
    assert len(batches) == 3 + 6  # of eight
    seed = result.uns["cfmvc"]["arguments"]["seed"]
    assert_equal(ad.read_h5ad(out), trained.predict_counterfactual(**asked, seed=seed))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"perturbation": "B"}, "perturbation differ"),
        ({"seed": 1}, "seed differ"),
        ({"output": "latent"}, "output differ"),
        ({"batch_size": 20}, "batch_size differ"),
        ({"indices": [0, 1]}, "cells differ"),
        ({"heterogeneity": 0.5}, "heterogeneity differ"),
    ],
)
def test_chunks_of_another_question_are_refused(
    trained: CFMVC, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], words: str
) -> None:
    asked = {"perturbation": "A", "seed": 0, "indices": [0, 1, 2], "out": tmp_path / "answer.zarr"}
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="stop"):
        patch.setattr(Observation, "matrix", lambda *args: (_ for _ in ()).throw(RuntimeError("stop")))
        trained.predict_counterfactual(**asked)
    with pytest.raises(DataError, match=rf"answer.zarr.partial.*another question \({words}\)"):
        trained.predict_counterfactual(**(asked | change))


def test_another_model_is_another_question(trained: CFMVC, own: CFMVC, tmp_path: Path) -> None:
    folder = tmp_path / "x.h5ad.partial"
    own.predict_counterfactual(perturbation="A", out=tmp_path / "y.h5ad", seed=0)
    folder.mkdir()
    with pytest.raises(DataError, match="model"):
        own.module.flow.base_out.bias.data += 1
        question = {"question": {}, "seed": 0}
        (folder / "question.json").write_text(json.dumps(question))
        own.predict_counterfactual(perturbation="A", out=tmp_path / "x.h5ad", seed=0)


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"out": "answer.csv"}, UnsupportedError, r"\.h5ad or \.zarr"),
        ({"out": "none/answer.h5ad"}, DataError, "no directory"),
        ({"out": "there.h5ad"}, DataError, "exists"),
        ({"out": "a.h5ad", "perturbation": ["A", "A/B"]}, DataError, "'A/B'"),
        ({"out": "a.h5ad", "key_added": "a"}, DataError, "key_added"),
        ({"perturbation": ["A", "B"], "key_added": "a"}, DataError, "key_added"),
        ({"out": "a.h5ad", "n_samples": 2}, DataError, "n_samples is 2"),
        ({"perturbation": ["A", "B"], "n_samples": 2}, DataError, "n_samples is 2"),
        ({"perturbation": ["A", "A"]}, DataError, "each once"),
        ({"perturbation": []}, DataError, "at least one"),
    ],
)
def test_what_cannot_be_written_is_refused_at_once(
    trained: CFMVC, tmp_path: Path, asked: dict[str, Any], error: type[Exception], words: str
) -> None:
    (tmp_path / "there.h5ad").touch()
    if "out" in asked:
        asked = asked | {"out": tmp_path / asked["out"]}
    with pytest.raises(error, match=words):
        trained.predict_counterfactual(**({"perturbation": "A"} | asked))
    assert [path.name for path in tmp_path.iterdir()] == ["there.h5ad"]


def test_no_more_than_a_chunk_is_in_memory(trained: CFMVC, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    answered = prediction.answered
    monkeypatch.setattr("cfmvc_scvi.model.counterfactual.answered", lambda *a: events.append("made") or answered(*a))
    monkeypatch.setattr("cfmvc_scvi.model.store._write_chunk", lambda path, _: events.append("gone") or path.touch())
    monkeypatch.setattr("cfmvc_scvi.model.store.ChunkStore.finish", lambda *_: None)
    trained.predict_counterfactual(perturbation="A", batch_size=100, out=tmp_path / "x.h5ad", output="latent")
    assert events == ["made", "gone"] * 4


@pytest.mark.parametrize("n_samples", [1, 2])
def test_cells_in_a_file_are_answered_in_the_order_asked(trained: CFMVC, tmp_path: Path, n_samples: int) -> None:
    trained.adata.copy().write_h5ad(tmp_path / "cells.h5ad")
    rows = np.array([7, 300, 5, 88, 41, 2])
    asked: dict[str, Any] = {"perturbation": "B", "seed": 0, "batch_size": 4, "n_samples": n_samples}
    expected = trained.predict_counterfactual(trained.adata.copy(), rows, **asked)
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    assert_equal(trained.predict_counterfactual(backed, rows, **asked), expected)


@pytest.mark.reliability
def test_a_killed_process_is_gone_on_with(trained: CFMVC, tmp_path: Path) -> None:
    trained.save(tmp_path / "model", save_anndata=True)
    out, script = tmp_path / "answer.h5ad", tmp_path / "ask.py"
    script.write_text(
        "import sys\nfrom cfmvc_scvi import CFMVC\n"
        "model = CFMVC.load(sys.argv[1], accelerator='cpu')\n"
        "model.predict_counterfactual(perturbation=['A', 'B'], seed=0, batch_size=5, out=sys.argv[2])\n"
    )
    command = [sys.executable, script, tmp_path / "model", out]
    for wanted in (10, 40):
        process = subprocess.Popen(command, env=os.environ)
        while process.poll() is None and len(list(tmp_path.glob("answer.h5ad.partial/0*.h5"))) < wanted:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    subprocess.run(command, check=True)
    assert_equal(ad.read_h5ad(out), trained.predict_counterfactual(perturbation=["A", "B"], seed=0, batch_size=5))
