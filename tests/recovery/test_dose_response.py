"""Doses of half effect that were planted."""

from collections.abc import Callable

import anndata as ad
import numpy as np
import pytest

from cfmvc_scvi import CFMVC, pl, tl
from cfmvc_scvi.datasets import simulated_perturbation
from cfmvc_scvi.errors import DataError, UnknownConditionError
from cfmvc_scvi.shift import fit_hill

LEVELS = {"max_epochs": {"representation": 2}, "stage": "representation"}
DOSES = (0.25, 0.5, 1.0, 2.0, 4.0)


@pytest.fixture(scope="module")
def data() -> ad.AnnData:
    return simulated_perturbation(2400, 150, n_cell_types=2, perturbations=("A",), doses=DOSES, seed=2)


@pytest.fixture(scope="module")
def model(data: ad.AnnData, fitted: Callable[..., CFMVC]) -> CFMVC:
    return fitted(data, {"dose_key": "dose"}, LEVELS)


def test_half_doses(model: CFMVC, data: ad.AnnData, true_effect: Callable[..., np.ndarray]) -> None:
    cells = data.copy()
    tl.dose_response(cells, model, "A")
    halves = cells.uns["dose_response"]["ec50"].set_index(["context", "gene"])
    for context in ("type_0", "type_1"):
        mine = cells[(cells.obs["perturbation"] == "control") & (cells.obs["cell_type"] == context)]
        genes = halves.loc[context].index.drop("all genes")
        effects = np.stack([true_effect(mine, "A", dose).mean(axis=0) for dose in DOSES])
        effects = effects[:, data.var_names.get_indexer(genes)]
        truth, shared = (
            fit_hill(DOSES, effects, np.full(effects.shape, 0.02), shared=shared).half_dose for shared in (False, True)
        )
        found = halves.loc[context].loc[genes]
        assert ((found["low"] <= truth) & (truth <= found["high"])).mean() > 0.75
        together = halves.loc[(context, "all genes")]
        assert together["identified"] and 1 / 1.6 < together["ec50"] / shared[0] < 1.6


def test_curves_say_what_was_seen_and_what_is_beyond(model: CFMVC, data: ad.AnnData, tmp_path: object) -> None:
    cells = data.copy()
    genes = ["gene_3", "gene_7"]
    tl.dose_response(cells, model, "A", doses=[0.7, 8.0], genes=genes, key_added="a")
    curves = cells.uns["a"]["curves"]
    assert sorted(curves["dose"].unique()) == sorted([*DOSES, 0.7, 8.0]) and set(curves["gene"]) == set(genes)
    assert set(curves.loc[curves["extrapolated"], "dose"]) == {8.0} and set(curves.loc[curves["seen"], "dose"]) == set(
        DOSES
    )
    by_dose = curves.set_index(["context", "gene", "dose"])["delta"].unstack("dose")
    np.testing.assert_allclose(by_dose[8.0], by_dose[4.0])  # flat beyond, which is why it is flagged
    expected = model.get_effect("A", dose=0.7).set_index(["context", "gene"])["delta"]
    np.testing.assert_allclose(by_dose[0.7], expected.loc[by_dose.index])
    ax = pl.dose_response(cells.uns["a"], context="type_1", show=False)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == genes
    dashed = [line for line in ax.lines if line.get_linestyle() == "--" and len(line.get_xdata()) > 1]
    assert all(max(line.get_xdata()) == 8.0 for line in dashed[: len(genes)])
    cells.write_h5ad(f"{tmp_path}/cells.h5ad")
    assert len(ad.read_h5ad(f"{tmp_path}/cells.h5ad").uns["a"]["ec50"]) == 6


def test_impossible_curves(model: CFMVC, data: ad.AnnData) -> None:
    for asked, error, words in [
        ({"perturbation": "Z"}, UnknownConditionError, "'Z'"),
        ({"perturbation": "control"}, DataError, "0 perturbations"),
        ({"perturbation": "A", "doses": [-1.0]}, DataError, "finite and positive"),
        ({"perturbation": "A", "doses": [np.nan]}, DataError, "finite and positive"),
        ({"perturbation": "A", "genes": ["gene_x"]}, UnknownConditionError, "gene_x"),
        ({"perturbation": "A", "level": 2.0}, DataError, "level"),
    ]:
        with pytest.raises(error, match=words):
            tl.dose_response(data.copy(), model, **asked)
    cells = data.copy()
    tl.dose_response(cells, model, "A", genes=["gene_0"])
    for asked, words in [({"context": "type_9"}, "type_9"), ({"genes": ["gene_1"]}, "gene_1")]:
        with pytest.raises(DataError, match=words):
            pl.dose_response(cells.uns["dose_response"], **asked)


def test_one_dose_is_no_curve(fitted: Callable[..., CFMVC]) -> None:
    few = simulated_perturbation(300, 60, n_cell_types=2, perturbations=("A",), seed=0)
    with pytest.raises(DataError, match=r"1 dose\(s\).*dose_key"):
        tl.dose_response(few, fitted(few, training=LEVELS), "A")
