"""What the decoder expects where a condition was not seen."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from cfmvc_scvi import CFMVC
from cfmvc_scvi.config import EffectConfig
from cfmvc_scvi.model.decoded import DecodedShifts, borrowed_pairs, decode_shifts
from cfmvc_scvi.model.panel import Panel
from cfmvc_scvi.model.torch_networks import TorchNetworks
from cfmvc_scvi.shift import with_decoded

SHARE = EffectConfig().decoded_share


class Softmax:
    """Networks whose latents are the logarithms of the counts of three genes, the last one technical."""

    n_intrinsic, n_technical = 2, 1

    def posterior(self, counts: sp.csr_matrix, inputs: Any) -> tuple[np.ndarray, np.ndarray]:
        z = np.log(counts.toarray())
        return z, np.ones_like(z)

    def fractions(self, z: np.ndarray, inputs: Any) -> np.ndarray:
        return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)


def panel() -> Panel:
    counts = sp.csr_matrix(np.array([[1, 2, 1], [3, 1, 4], [2, 2, 4], [9, 9, 9]], dtype=float))
    condition, context = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 0])
    return Panel(counts, {}, np.array(["a", "b", "c", "d"]), condition, context, np.arange(4))


def test_pairs_are_those_of_which_another_context_tells():
    groups = np.array([(0, 0), (0, 1), (0, 2), (1, 0), (2, 1), (2, 2), (2, 5), (3, 5)])
    pairs = borrowed_pairs(groups, np.array([0, 1, 2]))
    assert pairs.tolist() == [[1, 1], [1, 2], [2, 0], [2, 1], [2, 2]]
    assert borrowed_pairs(groups[:4], np.array([0])).shape == (0, 2)


def test_control_cells_of_the_context_are_moved_and_decoded():
    frames = np.array([[np.log(2), 0.0], [0.0, 0.0]])
    decoded = decode_shifts(Softmax(), panel(), np.array([[1, 0], [1, 1]]), lambda code: frames * code)
    doubled = np.array([[2, 2, 1], [6, 1, 4]])
    before, after = (
        np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True)).mean(axis=0)
        for counts in (np.array([[1, 2, 1], [3, 1, 4]]), doubled)
    )
    np.testing.assert_allclose(decoded.of(1, 0), after - before, rtol=1e-6)
    np.testing.assert_array_equal(decoded.of(1, 1), 0.0)
    assert decoded.of(2, 0) is None


@pytest.fixture
def unseen(tiny_adata: ad.AnnData, make_model: Callable[..., CFMVC], quick: dict[str, Any]) -> CFMVC:
    """A representation that has not seen A in T; A does the same, and much, to all cell types."""
    obs = tiny_adata.obs
    cells = tiny_adata[~((obs["perturbation"] == "A") & (obs["cell_type"] == "T"))].copy()
    counts = sp.csr_matrix(cells.X).toarray()
    counts[np.ix_((cells.obs["perturbation"] == "A").to_numpy(), np.arange(10))] += 20
    cells.X = sp.csr_matrix(counts)
    model = make_model(cells)
    model.train(**(quick | {"max_epochs": 40}), stage="representation")
    return model


def effects(model: CFMVC, decoded: DecodedShifts | None) -> pd.DataFrame:
    """Effects of A by context and gene, with other decoded shifts than the model's."""
    usual = model._reference
    model._reference = replace(usual, decoded=decoded, _goals={})
    try:
        return model.get_effect("A").set_index(["context", "gene"])["delta"].unstack()[model.adata.var_names]
    finally:
        model._reference = usual


def test_the_decoder_has_its_share_where_the_condition_was_not_seen_and_no_say_where_it_was(unseen):
    reference = unseen._reference
    alone, usual = effects(unseen, None), effects(unseen, reference.decoded)
    assert 0 < SHARE < 1
    others = alone.index != "T"
    np.testing.assert_array_equal(usual[others], alone[others])
    context = reference.contexts.names.index("T")
    change = reference.decoded.of(1, context)
    assert np.abs(change).max() > 0
    row, goals = list(reference.control_contexts).index(context), replace(reference, decoded=None, _goals={}).goals
    level = np.full_like(goals.of(1).goal, np.nan)
    level[row] = reference.control_level(context).mean + change
    expected = with_decoded(goals.of(1), level, SHARE).goal[row] - reference.control_level(context).mean
    np.testing.assert_allclose(usual.loc["T"], expected, atol=1e-9)
    assert np.abs(usual.loc["T"] - alone.loc["T"]).max() > 0


def test_it_is_saved_and_renewed_with_the_representation(unseen, quick, tmp_path: Path):
    before = unseen.get_effect("A")
    unseen.save(tmp_path / "model", save_anndata=True)
    loaded = CFMVC.load(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.get_effect("A"), before)
    first = unseen._reference.decoded
    unseen.train(**quick, stage="representation")
    again = unseen._reference.decoded
    np.testing.assert_array_equal(again.pairs, first.pairs)
    assert np.abs(again.change - first.change).max() > 0
    assert not unseen.get_effect("A")["delta"].equals(before["delta"])


def test_one_context_has_nobody_to_borrow_from(tiny_adata, make_model, quick):
    model = make_model(tiny_adata[tiny_adata.obs["cell_type"] == "T"].copy())
    model.train(**quick, stage="representation")
    assert model._reference.decoded.pairs.shape == (0, 2)
    assert model.get_effect("A")["observed"].all()


def test_goals_that_were_known_before_are_estimated_again(unseen):
    usual = unseen._reference
    before = replace(usual, decoded=None, _goals={})
    alone = before.goals.of(1).goal.copy()
    after = before.with_decoded(TorchNetworks(unseen.module)).goals.of(1).goal
    np.testing.assert_allclose(after, usual.goals.of(1).goal, atol=1e-6)
    assert np.abs(after - alone).max() > 0
