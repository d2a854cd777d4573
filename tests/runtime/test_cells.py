"""Cells that do not fit an exported model are refused in words, and those that fit are matched by name."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anndata as ad
import numpy as np
import pytest

from cfmvc_scvi.config import SolverConfig
from cfmvc_scvi.errors import CFMVCWarning, CorruptModelError, DataError, UnknownConditionError, UnsupportedError
from cfmvc_scvi.runtime import Bundle, Cells


@pytest.fixture
def cells(few: ad.AnnData) -> Cells:
    obs = {name: few.obs[name].tolist() for name in few.obs}
    return Cells(few.X.toarray(), obs, list(few.obs_names), list(few.var_names))


def with_obs(column: str, value: Any) -> Callable[[Cells], Cells]:
    """Change the last cell, which is perturbed."""
    return lambda cells: replace(cells, obs={**cells.obs, column: [*list(cells.obs[column])[:-1], value]})


def without(column: str) -> Callable[[Cells], Cells]:
    return lambda cells: replace(cells, obs={name: cells.obs[name] for name in cells.obs if name != column})


def with_count(value: float) -> Callable[[Cells], Cells]:
    def change(cells: Cells) -> Cells:
        matrix = cells.X.astype(float)
        matrix[1, 2] = value
        return replace(cells, X=matrix)

    return change


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (without("phase"), UnknownConditionError, "'phase' is not in obs"),
        (without("dose"), UnknownConditionError, "'dose' is not in obs"),
        (with_obs("cell_type", "type_9"), UnknownConditionError, r"obs\['cell_type'\].*'type_9'.*type_0, type_1"),
        (with_obs("site", 8), UnknownConditionError, r"obs\['site'\].*'8'.*7, 12"),
        (with_obs("perturbation", "Z"), UnknownConditionError, "'Z'.*Known"),
        (with_obs("batch", None), DataError, r"1 cell without a value in obs\['batch'\]: cell_"),
        (with_obs("perturbation", float("nan")), DataError, r"1 cell without a value in obs\['perturbation'\]"),
        (with_obs("mito", "high"), DataError, r"obs\['mito'\].*not all its values are numbers"),
        (with_obs("mito", float("inf")), DataError, r"obs\['mito'\] is not finite in 1 cell: cell_"),
        (with_obs("dose", -1.0), DataError, r"1 cell without a valid dose"),
        (with_count(np.nan), DataError, "1 NaN value.*cell 'cell_"),
        (with_count(-2), DataError, "1 negative value"),
        (with_count(0.5), DataError, "1 non-integer value"),
        (lambda cells: Cells(cells.X, cells.obs, cells.obs_names[1:], cells.var_names), DataError, "names of cells"),
        (lambda cells: replace(cells, obs={**cells.obs, "dose": [1.0]}), DataError, r"obs\['dose'\] has 1 values"),
        (lambda cells: replace(cells, var_names=[f"x{i}" for i in range(80)]), DataError, "no gene is shared"),
        (lambda cells: replace(cells, var_names=[cells.var_names[0]] * 80), DataError, "occur more than once"),
        (lambda cells: replace(cells, X=cells.X[:, 3:], var_names=cells.var_names[3:]), DataError, "3 genes of the"),
        (
            lambda cells: Cells(np.zeros((0, 80)), {name: [] for name in cells.obs}, [], cells.var_names),
            DataError,
            "0 cells",
        ),
    ],
)
def test_cells_that_do_not_fit_are_refused(
    torch_bundle: Bundle, cells: Cells, change: Callable[[Cells], Cells], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        torch_bundle.counterfactual(change(cells), perturbation="A", dose=2.0)


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"perturbation": "Q"}, UnknownConditionError, "'Q'.*Known"),
        ({"labels": "type_5"}, UnknownConditionError, "'type_5'.*label"),
        ({"batch": "batch_9"}, UnknownConditionError, "'batch_9'.*batch"),
        ({"output": "mean"}, DataError, "'mean'"),
        ({"heterogeneity": 2.0}, DataError, "heterogeneity"),
        ({"heterogeneity": float("nan")}, DataError, "heterogeneity"),
        ({"guidance_scale": float("nan")}, DataError, "guidance_scale"),
        ({"n_samples": 0}, DataError, "n_samples"),
        ({"dose": float("nan")}, DataError, "dose is nan"),
        ({"solver": SolverConfig("midpoint", 0)}, DataError, "n_steps is 0"),
        ({"solver": SolverConfig("dopri5", 5)}, UnsupportedError, "'dopri5' was not exported.*midpoint"),  # type: ignore[arg-type]
    ],
)
def test_impossible_questions_are_refused(
    torch_bundle: Bundle, cells: Cells, asked: dict, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        torch_bundle.counterfactual(cells, **asked)
    with pytest.raises(DataError, match="choose one of intrinsic"):
        torch_bundle.latent(cells, "all")  # type: ignore[arg-type]


def test_genes_are_matched_by_name_and_padded_on_request(torch_bundle: Bundle, cells: Cells) -> None:
    order = np.random.default_rng(0).permutation(80)
    shuffled = replace(cells, X=cells.X[:, order], var_names=cells.var_names[order])
    np.testing.assert_array_equal(torch_bundle.latent(shuffled), torch_bundle.latent(cells))
    fewer = replace(cells, X=cells.X[:, 3:], var_names=cells.var_names[3:])
    zeros = replace(cells, X=cells.X * (np.arange(80) >= 3))
    with pytest.warns(CFMVCWarning, match="3 genes of the model not in the data, counted as zero"):
        padded = torch_bundle.latent(fewer, pad_missing=True)
    np.testing.assert_array_equal(padded, torch_bundle.latent(zeros))


def test_without_a_question_of_its_own_nothing_can_be_checked(torch_bundle: Bundle) -> None:
    with pytest.raises(CorruptModelError, match="no question"):
        torch_bundle.check()
