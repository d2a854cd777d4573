import numpy as np
import pytest

from cfmvc_scvi.benchmark import leave_one_context_out
from cfmvc_scvi.errors import DataError, UnknownConditionError


def test_folds_cover_every_group_once_and_hide_it(tiny_adata):
    folds = list(leave_one_context_out(tiny_adata))
    groups = [(fold.condition, fold.context) for fold in folds]
    assert groups == [(p, c) for p in ("A", "B") for c in ("B", "T", "mono")]
    obs = tiny_adata.obs
    for fold in folds:
        held_out = (obs.perturbation == fold.condition) & (obs.cell_type == fold.context)
        np.testing.assert_array_equal(fold.truth, held_out)
        np.testing.assert_array_equal(fold.train, ~held_out)
        np.testing.assert_array_equal(fold.query, (obs.perturbation == "control") & (obs.cell_type == fold.context))
        other = "B" if fold.condition == "A" else "A"
        np.testing.assert_array_equal(fold.siblings, (obs.perturbation == other) & (obs.cell_type == fold.context))


def test_contexts_can_be_batches(tiny_adata):
    folds = list(leave_one_context_out(tiny_adata, context_key="batch"))
    assert [(fold.condition, fold.context) for fold in folds] == [(p, b) for p in "AB" for b in ("b1", "b2")]


def test_small_groups_are_neither_held_out_nor_learned_from(tiny_adata):
    obs = tiny_adata.obs
    few = ((obs.perturbation == "A") & (obs.cell_type == "T")).to_numpy()
    few &= np.cumsum(few) > 15
    kept = tiny_adata[~few].copy()
    groups = [(fold.condition, fold.context) for fold in leave_one_context_out(kept)]
    assert ("A", "T") not in groups and ("A", "B") in groups
    no_control = tiny_adata[~((obs.perturbation == "control") & (obs.cell_type == "T")).to_numpy()].copy()
    assert all(fold.context != "T" for fold in leave_one_context_out(no_control))


def test_combinations_are_found_in_any_order_of_their_parts(tiny_adata):
    names = tiny_adata.obs.perturbation.astype(str).to_numpy().astype(object)
    pairs = np.flatnonzero(names == "B")
    names[pairs[::2]], names[pairs[1::2]] = "A+B", "B+A"
    tiny_adata.obs["perturbation"] = names
    folds = [fold for fold in leave_one_context_out(tiny_adata) if "+" in fold.condition]
    assert [fold.condition for fold in folds] == ["A+B"] * 3
    assert sum(fold.truth.sum() for fold in folds) == len(pairs)


def test_nothing_to_hold_out_is_an_error(tiny_adata):
    with pytest.raises(DataError, match="No perturbation has 500 cells"):
        list(leave_one_context_out(tiny_adata, min_cells=500))
    tiny_adata.obs["one"] = "all"
    with pytest.raises(DataError, match="in two contexts of obs\\['one'\\]"):
        list(leave_one_context_out(tiny_adata, context_key="one"))
    with pytest.raises(UnknownConditionError, match="missing_column"):
        list(leave_one_context_out(tiny_adata, context_key="missing_column"))
