import numpy as np
import pytest

from cfmvc_scvi.errors import DataError, UnknownConditionError
from cfmvc_scvi.pp import leave_out


def test_one_condition_in_one_context(tiny_adata):
    train, test = leave_out(tiny_adata, "A", "T")
    obs = tiny_adata.obs
    assert np.array_equal(test, (obs["perturbation"] == "A") & (obs["cell_type"] == "T"))
    assert np.array_equal(train, ~test)


def test_all_conditions_of_a_context_leave_its_control_cells(tiny_adata):
    held_out = leave_out(tiny_adata, context="b1", context_key="batch")
    left = tiny_adata.obs[held_out.train]
    assert set(left.loc[left["batch"] == "b1", "perturbation"]) == {"control"}
    assert (left["batch"] == "b2").sum() == 180


def test_one_condition_everywhere(tiny_adata):
    held_out = leave_out(tiny_adata, "B")
    assert set(tiny_adata.obs.loc[held_out.train, "perturbation"]) == {"A", "control"}
    assert held_out.test.sum() == 120


def test_a_combination_is_a_condition_of_its_own(tiny_adata):
    labels = tiny_adata.obs["perturbation"].astype(str).replace("B", "B + A")
    tiny_adata.obs["perturbation"] = labels
    held_out = leave_out(tiny_adata, "A+B")
    assert np.array_equal(held_out.test, labels == "B + A")
    assert not leave_out(tiny_adata, "A").test[labels == "B + A"].any()


def test_data_stay_as_they_are(tiny_adata):
    before = tiny_adata.obs.copy()
    leave_out(tiny_adata, "A", "T")
    assert tiny_adata.obs.equals(before)


def test_nothing_to_hold_out(tiny_adata):
    with pytest.raises(DataError, match="give a condition"):
        leave_out(tiny_adata)
    with pytest.raises(DataError, match="start from"):
        leave_out(tiny_adata, "control", "T")
    only = tiny_adata[~((tiny_adata.obs["perturbation"] == "A") & (tiny_adata.obs["cell_type"] == "T"))]
    with pytest.raises(DataError, match="no cell to hold out: condition 'A', context 'T'"):
        leave_out(only, "A", "T")


def test_context_without_control_cells(tiny_adata):
    bare = tiny_adata[~((tiny_adata.obs["perturbation"] == "control") & (tiny_adata.obs["cell_type"] == "T"))]
    with pytest.raises(DataError, match="'T' has no cells of 'control'"):
        leave_out(bare, context="T")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"condition": "Z"}, "Z"),
        ({"condition": "A+Z"}, "Z"),
        ({"context": "Z"}, "Z"),
        ({"condition": "A", "perturbation_key": "drug"}, "drug"),
        ({"context": "T", "context_key": "celltype"}, "celltype"),
    ],
)
def test_unknown_names(tiny_adata, arguments, name):
    with pytest.raises(UnknownConditionError, match=name):
        leave_out(tiny_adata, **arguments)


def test_missing_labels(tiny_adata):
    tiny_adata.obs["cell_type"] = tiny_adata.obs["cell_type"].astype(object)
    tiny_adata.obs.iloc[0, tiny_adata.obs.columns.get_loc("cell_type")] = None
    with pytest.raises(DataError, match="1 cell has no value in obs\\['cell_type'\\]"):
        leave_out(tiny_adata, "A", "T")
