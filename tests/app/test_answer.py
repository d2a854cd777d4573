import sys

import anndata as ad
import numpy as np
import pytest

from cfmvc_scvi import CFMVC, app
from cfmvc_scvi.errors import DataError


@pytest.fixture
def model_and_cells(asked):
    return CFMVC.load(asked[0], adata=False), ad.read_h5ad(asked[1])


def test_what_can_be_asked(model_and_cells):
    offered = app.choices(*model_and_cells)
    assert offered == app.Choices(("A", "B"), ("B", "T", "mono"), (), ())


def test_an_answer_is_of_the_cells_asked_about(model_and_cells, tmp_path):
    model, cells = model_and_cells
    answer = app.answer(model, cells, app.Question(("A",), labels="T", n_cells=15))
    assert {role: part.n_obs for role, part in answer.cells.items()} == {"control": 15, "true": 15, "predicted": 15}
    assert list(answer.cells["control"].obs_names) == list(answer.cells["predicted"].obs_names)
    assert set(answer.cells["true"].obs["perturbation"]) == {"A"}
    assert set(answer.cells["true"].obs["cell_type"]) == {"T"}
    assert answer.trust["context"] == "T" and not answer.trust["observed"]
    assert set(answer.effect["context"]) == {"T"} and len(answer.effect) == 60
    assert answer.joint.n_obs == 45
    shown = answer.values(["gene3", "gene0"])["control"]
    assert shown.shape == (15, 2)
    expected = answer.cells["control"][:, ["gene3"]].X.toarray() > 0
    assert np.array_equal(shown[:, :1] > 0, expected)
    path = tmp_path / "read.h5ad"
    path.write_bytes(app.h5ad_bytes(answer.cells["predicted"]))
    assert (ad.read_h5ad(path).X != answer.cells["predicted"].X).nnz == 0


def test_a_combination_that_nobody_measured_has_no_true_cells(model_and_cells):
    answer = app.answer(*model_and_cells, app.Question(("B", "A"), labels="mono", n_cells=10))
    assert list(answer.cells) == ["control", "predicted"]
    assert bool(answer.trust["composed"])


def test_questions_without_an_answer(model_and_cells):
    model, cells = model_and_cells
    with pytest.raises(DataError, match="no perturbation is chosen"):
        app.answer(model, cells, app.Question((), labels="T"))
    with pytest.raises(DataError, match="0 control cells"):
        app.answer(model, cells, app.Question(("A",), labels="nothing"))
    treated = cells[cells.obs["perturbation"] == "A"].copy()
    with pytest.raises(DataError, match="no cell of the data is 'control'"):
        app.choices(model, treated)


def test_it_listens_on_this_machine_alone(monkeypatch, tmp_path):
    called = []
    monkeypatch.setattr(sys.modules["cfmvc_scvi.app.launch"], "require_extra", lambda *_, **__: None)
    monkeypatch.setattr(
        "subprocess.run", lambda command, **_: called.append(command) or type("Done", (), {"returncode": 0})
    )
    assert app.launch(tmp_path / "model", tmp_path / "cells.h5ad", browser=False) == 0
    assert "--server.address=127.0.0.1" in called[0]
    assert "--browser.gatherUsageStats=false" in called[0]
    assert called[0][-2:] == [str(tmp_path / "model"), str(tmp_path / "cells.h5ad")]
