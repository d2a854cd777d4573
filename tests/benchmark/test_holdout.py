import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from cfmvc_scvi.benchmark import leave_one_context_out, make_folds
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


@pytest.fixture
def screen(rng):
    """Control, A, B and A+B in two replicates, 30 cells each; A at three doses."""
    rows = [("control", "0"), ("A", "0.5"), ("A", "1"), ("A", "2"), ("B", "1"), ("A+B", "1")]
    obs = [(name, dose, r) for name, dose in rows for r in ("r1", "r2") for _ in range(30)]
    frame = pd.DataFrame(obs, columns=["perturbation", "dose", "replicate"], index=[f"c{i}" for i in range(len(obs))])
    return AnnData(rng.poisson(2.0, (len(obs), 5)).astype(float), obs=frame.astype({"dose": float}))


def test_a_perturbation_is_held_out_everywhere_and_in_combinations(screen):
    folds = make_folds(screen, "perturbation", context_key="replicate")
    assert [(f.condition, f.context, f.training, f.number) for f in folds] == [
        ("A", "r1", 0, 0), ("A", "r2", 0, 1), ("B", "r1", 1, 2), ("B", "r2", 1, 3),
    ]  # fmt: skip
    assert set(screen.obs.perturbation[folds[0].train]) == {"control", "B"}
    assert set(screen.obs.perturbation[folds[2].train]) == {"control", "A"}
    assert set(screen.obs.perturbation[folds[0].siblings]) == {"B"}  # never A+B, which the model must not see
    np.testing.assert_array_equal(folds[0].train, folds[1].train)


def test_a_combination_is_held_out_and_its_parts_stay(screen):
    (first, second) = make_folds(screen, "combination", context_key="replicate")
    assert (first.condition, first.context, second.context) == ("A+B", "r1", "r2")
    assert set(screen.obs.perturbation[first.train]) == {"control", "A", "B"}
    assert set(screen.obs.perturbation[first.truth]) == {"A+B"}
    alone = screen[screen.obs.perturbation != "B"].copy()
    with pytest.raises(DataError, match="There are 1 combinations .* parts that also occur alone"):
        make_folds(alone, "combination", context_key="replicate")


def test_a_dose_is_held_out_and_the_others_stay(screen):
    folds = make_folds(screen, "dose", dose_key="dose")
    assert [(f.condition, f.perturbation, f.dose) for f in folds] == [
        ("A@0.5", "A", 0.5), ("A@1", "A", 1.0), ("A@2", "A", 2.0),
    ]  # fmt: skip
    gone = screen.obs[~folds[1].train]
    assert set(gone.perturbation) == {"A"} and set(gone.dose) == {1.0}
    assert folds[0].context == "all cells" and folds[0].query.sum() == 60
    with pytest.raises(DataError, match="holding out doses needs dose_key"):
        make_folds(screen, "dose")
    with pytest.raises(DataError, match="No perturbation has two doses"):
        make_folds(screen[screen.obs.dose < 0.7].copy(), "dose", dose_key="dose")


def test_doses_are_conditions_in_every_kind_of_fold(screen):
    conditions = {f.condition for f in make_folds(screen, "replicate", dose_key="dose")}
    assert conditions == {"A@0.5", "A@1", "A@2", "B@1", "A@1+B@1"}
    combined = next(f for f in make_folds(screen, "combination", dose_key="dose"))
    assert (combined.condition, combined.perturbation, combined.dose) == ("A@1+B@1", "A+B", 1.0)
    held_out = make_folds(screen, "perturbation", dose_key="dose")
    assert [f.training for f in held_out] == [0, 0, 0, 1]
    assert set(screen.obs.perturbation[held_out[0].train]) == {"control", "B"}


def test_several_can_be_held_out_together(screen):
    folds = make_folds(screen, "dose", dose_key="dose", n_splits=2)
    assert [(f.condition, f.training) for f in folds] == [("A@0.5", 0), ("A@2", 0), ("A@1", 1)]
    with pytest.raises(DataError, match="n_splits is 4; there are 3 doses to hold out"):
        make_folds(screen, "dose", dose_key="dose", n_splits=4)
    with pytest.raises(DataError, match="Without A, B no perturbed cell is left"):
        make_folds(screen, "perturbation", n_splits=1)


def test_holdout_must_be_a_column_or_a_word(screen):
    with pytest.raises(UnknownConditionError, match="'donor' cannot be held out: it is no column of obs"):
        make_folds(screen, "donor")
    with pytest.raises(DataError, match="so context_key cannot be 'dose'"):
        make_folds(screen, "replicate", context_key="dose")
    with pytest.raises(DataError, match="n_splits goes with"):
        make_folds(screen, "replicate", n_splits=2)
    with pytest.raises(DataError, match="no cell has 'DMSO'"):
        make_folds(screen, "replicate", control="DMSO")
    with pytest.raises(DataError, match="There are 1 perturbations"):
        make_folds(screen[screen.obs.perturbation.isin(["control", "A"])].copy(), "perturbation")
