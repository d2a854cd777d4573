"""A question with its checked cells, and the form of its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from cfmvc_scvi.model.cells import CellBatch, Group, Groups
from cfmvc_scvi.model.level import Level
from cfmvc_scvi.model.prediction import Parts, draw_names, group_names, provenance
from cfmvc_scvi.model.question import Known
from cfmvc_scvi.runtime.card import Card
from cfmvc_scvi.runtime.cells import Prediction
from cfmvc_scvi.runtime.question import Question, Settings

__all__ = ["Asked", "named_groups", "prediction_of"]


@dataclass(frozen=True)
class Asked:
    """Checked cells with the condition that they shall have.

    Attributes
    ----------
    cells
        With their own groups.
    wanted
        The groups asked for by the name of the answer; one answer alone has no name.
    taken_to
        Groups that they are taken to, by the same names: their own where no effect is asked for.
    levels
        Expected level of each group asked for, of cells that change.
    question
        What was asked.
    settings
        How it is answered.
    """

    cells: CellBatch
    wanted: dict[str | None, Groups]
    taken_to: dict[str | None, Groups]
    levels: dict[Group, Level]
    question: Question
    settings: Settings


def named_groups(known: Known, own: Groups, wanted: Mapping[str | None, Groups]) -> Parts:
    """Return the columns of `obs` that name the groups of cells, and those asked for by the name of the answer."""
    columns: Parts = {}
    for prefix, groups in (("source", own), *(("target", each) for each in wanted.values())):
        condition, context = group_names(known, groups)
        columns |= {f"obs/{prefix}_condition": condition, f"obs/{prefix}_context": context}
    if None not in wanted:  # the name of the answer says it
        del columns["obs/target_condition"]
    return columns


def prediction_of(card: Card, asked: Asked, parts: Parts, solved: tuple[int, int]) -> Prediction:
    """Return the answer to a question.

    Parameters
    ----------
    card
        Of the model.
    asked, parts
        The question, and the answers to it as arrays by their place.
    solved
        Number of ODEs that were solved for it, and of evaluations.
    """
    n_draws, names = asked.settings.n_samples, asked.cells.names
    obs = {name: np.tile(values, n_draws) for name, values in _below("obs/", parts).items()}
    if n_draws > 1:
        obs["draw"] = np.repeat(np.arange(n_draws), len(names))
    draws = [values for place, values in parts.items() if place == "X" or place.startswith("X ")]
    matrix: Any = None
    if draws:
        matrix = sp.vstack(draws, format="csr") if asked.settings.output == "counts" else draws[0]
    latents = _below("obsm/", parts)
    obsm = {name: np.tile(values, (n_draws, 1)) for name, values in latents.items()}
    arguments = asked.question.arguments(asked.settings)
    told = provenance(asked.settings.solver, solved, asked.levels.values(), card.versions, arguments)
    all_names = np.array(draw_names(names, n_draws), dtype=object)
    genes = np.array(card.genes, dtype=object)
    return Prediction(matrix, obs, all_names, genes, obsm, {"cfmvc": told}, _below("layers/", parts))


def _below(folder: str, parts: Parts) -> dict[str, Any]:
    return {place.removeprefix(folder): values for place, values in parts.items() if place.startswith(folder)}
