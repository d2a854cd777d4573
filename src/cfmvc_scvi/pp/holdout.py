"""Holding out the perturbed cells of a condition in a context."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from cfmvc_scvi.data import Vocabulary, check_labels
from cfmvc_scvi.errors import DataError, UnknownConditionError

__all__ = ["HoldOut", "leave_out"]


class HoldOut(NamedTuple):
    """Masks of training and test cells, (cells,) each; no cell is in both.

    Parameters
    ----------
    train
        Cells to train and to choose genes on, control cells of the held-out context among them.
    test
        Perturbed cells to predict.
    """

    train: NDArray[np.bool_]
    test: NDArray[np.bool_]


def leave_out(
    adata: AnnData,
    condition: str | None = None,
    context: str | None = None,
    *,
    perturbation_key: str = "perturbation",
    context_key: str = "cell_type",
    control: str = "control",
) -> HoldOut:
    """Hold out the cells of one condition, one context, or one condition in one context; never control cells.

    A combination is a condition of its own: without ``"A+B"``, cells of ``"A"`` stay in training, and the reverse.

    Reads `obs` `perturbation_key` and `context_key`. Nothing is written.

    Parameters
    ----------
    adata
        Annotated cells.
    condition
        Condition to hold out, the parts of a combination in any order. None: every condition but control.
    context
        Context to hold it out in, for example a cell type or a donor. None: all contexts.
    perturbation_key
        Column of `obs` with the conditions.
    context_key
        Column of `obs` with the contexts; not read if `context` is None.
    control
        Label of unperturbed cells.

    Returns
    -------
    Masks of training and test cells.

    Raises
    ------
    UnknownConditionError
        If a column, the condition or the context is not in the data.
    DataError
        If the condition is the control, neither is given, a cell has no label, no cell is left to test, or the context
        has no control cells, from which a prediction would start.
    """
    if condition is None and context is None:
        raise DataError("nothing to hold out; give a condition, a context, or both")
    labels = check_labels(adata.obs, perturbation_key, "perturbation")
    vocabulary = Vocabulary.from_labels(labels, control)
    canonical = labels.map({label: vocabulary.canonical(label) for label in labels.unique()}).to_numpy()
    is_control = canonical == control
    test = ~is_control
    if condition is not None:
        wanted = vocabulary.canonical(condition)
        if wanted == control:
            raise DataError(f"'{condition}' is the control, which predictions start from; hold out a perturbation")
        test &= canonical == wanted
    if context is not None:
        contexts = check_labels(adata.obs, context_key, "context").to_numpy()
        inside = contexts == context
        if not inside.any():
            raise UnknownConditionError(f"'{context}' is not in obs['{context_key}']: {sorted(set(contexts))}")
        if not (inside & is_control).any():
            raise DataError(f"context '{context}' has no cells of '{control}', from which a prediction would start")
        test &= inside
    if not test.any():
        raise DataError(f"no cell to hold out: condition {condition!r}, context {context!r}")
    return HoldOut(train=~test, test=test)
