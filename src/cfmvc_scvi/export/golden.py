"""The question that an exported model carries with it, and what the original answers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfmvc_scvi._keys import CFMVC_REGISTRY_KEYS
from cfmvc_scvi.runtime import Bundle, Cells

__all__ = ["golden_question"]

_CELLS_OF_A_CONTEXT = 2
_CONTEXTS = 4


def golden_question(bundle: Bundle) -> dict[str, Any]:
    """Return remembered control cells, a condition to ask them for, and the answers of the model.

    Parameters
    ----------
    bundle
        The model, its networks still in torch.
    """
    rows, design = _control_rows(bundle), bundle.known.reference.designs[1]
    panel, vocabulary = bundle.known.reference.panel, bundle.known.vocabulary
    cells = Cells(
        panel.counts[rows].toarray(),
        {name: values.tolist() for name, values in _annotation(bundle, rows).items()},
        [f"golden {number}" for number in range(len(rows))],
        bundle.genes,
    )
    question: dict[str, Any] = {"perturbation": vocabulary.names(design)[0], "seed": 0}
    if bundle.known.has_doses:
        question["dose"] = float(design.max())
    answers = _answers(bundle, cells, question)
    given = {"X": np.asarray(cells.X), "obs": dict(cells.obs), "obs_names": list(cells.obs_names)}
    return {"cells": given, "question": question, "answers": answers}


def _answers(bundle: Bundle, cells: Cells, question: dict[str, Any]) -> dict[str, NDArray]:
    mean, sd = bundle.encode(cells)
    answers = {"mean": mean, "sd": sd}
    for output in ("counts", "normalized"):
        answer = bundle.counterfactual(cells, **question, output=output, solver=bundle.default_solver)
        answers[output] = answer.dense
    return answers | {"latent": answer.obsm["X_cfmvc_counterfactual"]}


def _control_rows(bundle: Bundle) -> NDArray[np.int64]:
    reference = bundle.known.reference
    contexts = reference.control_contexts[:_CONTEXTS]
    return np.concatenate([reference.panel.rows(0, int(code))[:_CELLS_OF_A_CONTEXT] for code in contexts])


def _annotation(bundle: Bundle, rows: NDArray[np.int64]) -> dict[str, NDArray]:
    """Return the columns of remembered control cells as their data had them."""
    columns, card, keys = bundle.card.columns, bundle.card, CFMVC_REGISTRY_KEYS
    tensors = bundle.known.reference.panel.tensors
    obs: dict[str, NDArray] = {columns.perturbation: np.full(len(rows), bundle.known.vocabulary.control)}
    if columns.dose is not None:
        obs[columns.dose] = np.zeros(len(rows))
    registered = (
        (columns.labels, keys.LABELS_KEY, card.labels),
        (columns.batch, keys.BATCH_KEY, card.batches),
        (columns.sample, keys.SAMPLE_KEY, card.samples),
    )
    for column, key, names in registered:
        if column is not None and names is not None:
            obs[column] = np.array(names)[tensors[key][rows].ravel().astype(int)]
    for number, (column, names) in enumerate(columns.categories.items()):
        obs[column] = np.array(names)[tensors[keys.CAT_COVS_KEY][rows, number].astype(int)]
    for number, column in enumerate(columns.continuous):
        obs[column] = tensors[keys.CONT_COVS_KEY][rows, number]
    return obs
