"""A sparse design, which more than a hundred perturbations have, changes nothing but memory."""

from __future__ import annotations

import numpy as np
import scvi

from cfmvc_scvi import CFMVC


def test_a_model_is_the_same_whether_its_design_is_dense_or_sparse(tiny_adata, make_model, quick, monkeypatch):
    answers = []
    for most in (100, 0):
        monkeypatch.setattr("cfmvc_scvi.data.fields._MOST_COLUMNS", most)
        scvi.settings.seed = 0
        model = make_model(tiny_adata.copy())
        model.train(plan_kwargs={"lambda_perturbation": 1.0}, stage=("representation", "flow"), **quick)
        model.train(stage="joint", **quick)
        answers.append(model.predict_counterfactual(perturbation="A", seed=0))
        design = model.adata.obsm["_scvi_perturbation"]
        assert isinstance(design, np.ndarray) == (most == 100)
    assert abs(answers[0].X - answers[1].X).max() == 0
    np.testing.assert_array_equal(*(answer.obsm["X_cfmvc_counterfactual"] for answer in answers))


def test_query_cells_are_mapped_by_a_sparse_design_as_by_a_dense_one(tiny_adata, make_model, quick, monkeypatch):
    answers = []
    for most in (100, 0):
        monkeypatch.setattr("cfmvc_scvi.data.fields._MOST_COLUMNS", most)
        scvi.settings.seed = 0
        reference = make_model(tiny_adata.copy())
        reference.train(**quick)
        cells = tiny_adata[:120].copy()
        cells.obs["batch"] = "new"
        query = CFMVC.load_query_data(cells, reference, accelerator="cpu")
        query.train(**quick, plan_kwargs={"weight_decay": 0.0})
        answers.append(query.predict_counterfactual(perturbation="B", seed=0))
        assert isinstance(query.adata.obsm["_scvi_perturbation"], np.ndarray) == (most == 100)
    assert abs(answers[0].X - answers[1].X).max() == 0
