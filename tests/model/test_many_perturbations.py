"""A sparse design, which more than a hundred perturbations have, changes nothing but memory."""

from __future__ import annotations

import numpy as np
import scvi


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
