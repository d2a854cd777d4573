"""Perturbations without cells: predicted from features, composed with seen ones, saved, and refused in words."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from cfmvc_scvi import CFMVC
from cfmvc_scvi.errors import DataError, UnknownConditionError

SETUP = {"batch_key": None, "perturbation_embeddings_key": "features"}
UNSEEN = ("like P0", "unknown", "gene3")


@pytest.fixture(scope="module")
def screen() -> ad.AnnData:
    """Control and P0-P7 in two contexts: P0-P3 raise genes 0-9, P4-P7 lower genes 10-19; features tell which."""
    rng = np.random.default_rng(3)
    n_genes, n_each, rows, obs = 40, 30, [], []
    profile = rng.gamma(2.0, 1.0, n_genes) + 1
    for context in ("a", "b"):
        own = profile * rng.lognormal(0, 0.3, n_genes)
        for name in ("control", *(f"P{i}" for i in range(8))):
            fold = np.ones(n_genes)
            if name != "control":
                fold[slice(0, 10) if name < "P4" else slice(10, 20)] = 3.0 if name < "P4" else 0.3
            mean = 400 * own * fold / (own * fold).sum()
            rows.append(rng.poisson(rng.gamma(5.0, np.tile(mean / 5.0, (n_each, 1)))))
            obs += [(context, name)] * n_each
    frame = pd.DataFrame(obs, columns=["cell_type", "perturbation"], index=[f"cell{i}" for i in range(len(obs))])
    var = pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)])
    adata = ad.AnnData(sparse.csr_matrix(np.vstack(rows).astype(np.float32)), obs=frame.astype("category"), var=var)
    features = pd.DataFrame(
        {"x": [1.0] * 4 + [-1.0] * 4 + [1.0, np.nan, np.nan], "y": [0.1, -0.1] * 4 + [0.1, np.nan, np.nan]},
        index=[*(f"P{i}" for i in range(8)), *UNSEEN],
    )
    adata.uns["features"] = features
    return adata


@pytest.fixture(scope="module")
def model(screen, make_model, quick) -> CFMVC:
    model = make_model(screen.copy(), SETUP)
    model.train(**quick)
    return model


def control(screen):
    return screen[(screen.obs["perturbation"] == "control") & (screen.obs["cell_type"] == "a")].copy()


def delta(model, name, context="a"):
    effect = model.get_effect(name)
    return effect[effect["context"] == context].set_index("gene")["delta"][model.get_var_names()].to_numpy()


def test_features_of_a_seen_one_give_nearly_its_effect(model):
    unseen, seen, other = (delta(model, name) for name in ("like P0", "P1", "P5"))
    assert np.corrcoef(unseen, seen)[0, 1] > 0.9
    assert np.linalg.norm(unseen - seen) < 0.35 * np.linalg.norm(unseen - other)


def test_without_features_it_does_what_all_share(model):
    others = np.mean([delta(model, f"P{i}") for i in range(8)], axis=0)
    shared = delta(model, "unknown")
    assert np.linalg.norm(shared) <= 1.1 * np.linalg.norm(others)
    effect = model.get_effect("unknown")
    assert not effect["observed"].any()
    assert (effect["sd"] > 0).all()


def test_counts_follow_the_effect(model, screen):
    cells = control(screen)
    result = model.predict_counterfactual(cells, perturbation="like P0", seed=0)
    before, after = (np.asarray(x.sum(axis=0)).ravel() for x in (cells.X, result.X))
    assert (after[:10] / after.sum() > 1.4 * before[:10] / before.sum()).all()
    assert np.array_equal(result.X.data, np.rint(result.X.data))
    assert result.uns["cfmvc"]["n_conditions_unseen"] == 1
    drawn = model.sample_cells("like P0", n_cells=20, labels="a", seed=0)
    assert drawn.n_obs == 20


def test_combination_with_a_seen_one_adds_up(model):
    combined, parts = delta(model, "like P0+P5"), [delta(model, name) for name in ("like P0", "P5")]
    level = model.get_effect("like P0")
    base = level[level["context"] == "a"].set_index("gene")["control"][model.get_var_names()].to_numpy()
    np.testing.assert_allclose(combined, np.maximum(base + sum(parts), 0) - base, atol=1e-6)


def test_control_has_no_coefficients_bit_for_bit(model):
    zero = np.zeros(len(model.vocabulary.perturbations), dtype=np.float32)
    np.testing.assert_array_equal(model._reference.lent_design(zero), zero)


def test_designs_of_seen_ones_stand_for_an_unseen_one(model):
    vocabulary, reference = model.vocabulary, model._reference
    lent = reference.lent_design(vocabulary.design("like P0")[0])
    unseen = [vocabulary.perturbations.index(name) for name in UNSEEN]
    assert not lent[unseen].any()
    alike = [vocabulary.perturbations.index(f"P{i}") for i in range(4)]
    assert lent[alike].sum() > 0.5
    seen = vocabulary.design("P3")[0]
    np.testing.assert_array_equal(reference.lent_design(seen), seen)


def test_frame_is_that_of_its_relatives(model):
    vocabulary, reference = model.vocabulary, model._reference
    unseen, seen, other = (reference.frame(vocabulary.design(name)[0])[0] for name in ("like P0", "P1", "P5"))
    assert np.linalg.norm(unseen - seen) < np.linalg.norm(unseen - other)


def test_partners_are_its_relatives(model):
    level = model._reference.level(model.vocabulary.design("like P0")[0], 0)
    names = model.vocabulary.names(model._reference.designs)
    shares = {names[code]: share for code, share in level.partners}
    assert sum(shares.get(f"P{i}", 0.0) for i in range(4)) > 0.5


def test_saved_models_know_the_features(model, screen, tmp_path):
    model.save(tmp_path / "model")
    cells = control(screen)
    del cells.uns["features"]
    loaded = CFMVC.load(tmp_path / "model", adata=screen.copy(), accelerator="cpu")
    before, after = (m.predict_counterfactual(cells, perturbation="like P0", seed=0).X for m in (model, loaded))
    assert (before != after).nnz == 0
    pd.testing.assert_frame_equal(model.get_effect("like P0"), loaded.get_effect("like P0"))
    assert CFMVC.load(tmp_path / "model", adata=False, accelerator="cpu").get_effect("unknown") is not None


def test_features_change_nothing_for_seen_perturbations(model, screen, make_model, quick):
    plain = make_model(screen.copy(), {"batch_key": None})
    plain.train(**quick)
    np.testing.assert_allclose(delta(plain, "P2"), delta(model, "P2"))


def test_own_gene_falls_as_others_do(screen, make_model, quick):
    adata = screen.copy()
    adata.var_names = [f"P{j - 30}" if 30 <= j < 38 else f"gene{j}" for j in range(40)]
    counts = adata.X.toarray()
    for i in range(8):
        counts[(adata.obs["perturbation"] == f"P{i}").to_numpy(), 30 + i] = 0
    adata.X = sparse.csr_matrix(counts)
    model = make_model(adata, SETUP)
    model.train(max_epochs={"representation": 1, "flow": 1}, **{k: v for k, v in quick.items() if k != "max_epochs"})
    effect = model.get_effect("gene3").set_index(["context", "gene"])
    assert effect.loc[("a", "gene3"), "delta"] < -1
    assert effect.loc[("a", "gene25"), "delta"] > -0.5


def test_unknown_names_are_refused(model, screen):
    with pytest.raises(UnknownConditionError, match="perturbation_embeddings_key="):
        model.predict_counterfactual(control(screen), perturbation="nobody")


def test_two_seen_perturbations_are_too_few(tiny_adata, make_model, quick):
    tiny_adata.uns["features"] = pd.DataFrame({"x": [0.0, 1.0, 1.0]}, index=["A", "B", "new"])
    model = make_model(tiny_adata, {"perturbation_embeddings_key": "features"})
    model.train(**quick)
    with pytest.raises(DataError, match="at least three"):
        model.get_effect("new")


def test_a_part_known_from_combinations_alone_names_the_remedy(screen, make_model, quick):
    adata = screen.copy()
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(str).replace({"P7": "P6+P7"})
    model = make_model(adata, {"batch_key": None})
    model.train(**quick)
    with pytest.raises(UnknownConditionError, match="perturbation_embeddings_key="):
        model.get_effect("P7")
