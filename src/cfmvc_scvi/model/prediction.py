"""From cells and the condition asked for to their counterfactuals, as arrays: the same with torch and without."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from cfmvc_scvi.config import SolverConfig
from cfmvc_scvi.model.cells import CellBatch, Group
from cfmvc_scvi.model.level import Level
from cfmvc_scvi.model.plan import Observation
from cfmvc_scvi.model.question import Known, levels

__all__ = ["Predicted", "chosen_seed", "draw_names", "group_names", "predicted", "provenance"]


@dataclass(frozen=True)
class Predicted:
    """Counterfactuals of cells.

    Attributes
    ----------
    before, after
        `(cells, n_intrinsic)` latents, observed and counterfactual.
    own, wanted
        The group of each cell, and the one asked for.
    draws
        `(cells, genes)` matrices, one per draw of the noise; none where only latents are asked for.
    levels
        Expected level of each group asked for, of cells that change.
    """

    before: NDArray[np.float32]
    after: NDArray[np.float32]
    own: list[Group]
    wanted: list[Group]
    draws: list[sp.csr_matrix | NDArray[np.float64]]
    levels: dict[Group, Level]

    def take(self, rows: slice) -> Predicted:
        """Return these cells, with the levels of the groups that they were asked for."""
        own, wanted = self.own[rows], self.wanted[rows]
        moved = {target for source, target in zip(own, wanted, strict=True) if source != target}
        levels = {group: self.levels[group] for group in self.levels if group in moved}
        draws = [draw[rows] for draw in self.draws]
        return Predicted(self.before[rows], self.after[rows], own, wanted, draws, levels)


def predicted(
    known: Known, observations: Sequence[Observation], minibatches: Iterable[CellBatch], output: str
) -> Predicted:
    """Predict cells, minibatch by minibatch.

    Parameters
    ----------
    known
        What the model knows.
    observations
        One per draw of the noise, all with one engine.
    minibatches
        The cells, at least one, with their own and the wanted groups.
    output
        As in `CFMVC.predict_counterfactual`.

    Raises
    ------
    UnknownConditionError
        If a context has no control cells, or a part of a condition was never seen and has no features.
    NonFiniteError
        If the ODE leaves the finite numbers.
    """
    engine = observations[0].engine
    blocks: list[list[Any]] = [[] for _ in observations]
    latents, own, wanted = [], [], []
    seen: dict[Group, Level] = {}
    for cells in minibatches:
        seen |= levels(known, cells)
        observed, moved = engine.latents(cells)
        latents.append(np.stack([observed, moved])[:, :, : engine.networks.n_intrinsic].astype(np.float32))
        own += [cells.own.kinds[code] for code in cells.own.code]
        wanted += [cells.wanted.kinds[code] for code in cells.wanted.code]
        if output != "latent":
            for block, observation in zip(blocks, observations, strict=True):
                block.append(observation.matrix(cells, observed, moved, output))
    before, after = np.concatenate(latents, axis=1)
    stack = sp.vstack if output == "counts" else np.vstack
    return Predicted(before, after, own, wanted, [stack(block) for block in blocks if block], seen)


def group_names(known: Known, groups: Sequence[Group]) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    """Return the name of the condition and of the context of each group, `(groups,)` each."""
    kinds = {group: position for position, group in enumerate(dict.fromkeys(groups))}
    code = np.array([kinds[group] for group in groups], dtype=np.int64)
    conditions = known.vocabulary.names(np.stack([group.row for group in kinds]), known.has_doses)
    contexts = [known.contexts.names[group.context] for group in kinds]
    return np.array(conditions, dtype=object)[code], np.array(contexts, dtype=object)[code]


def provenance(
    solver: SolverConfig,
    solved: tuple[int, int],
    levels: Iterable[Level],
    versions: Mapping[str, str],
    arguments: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what a reader needs to repeat the prediction; plain values that h5ad can hold.

    `solved` is the number of ODEs that were solved for it, and that of the evaluations that they took.
    """
    known = list(levels)
    return {
        "model": "CFMVC",
        "arguments": {key: value for key, value in arguments.items() if value is not None},
        "versions": dict(versions),
        "solver": {
            **asdict(solver),
            "status": "success" if solved[0] else "not needed",
            "n_evaluations": solved[1],
        },
        "reference": "control and perturbed cells of training",
        "n_conditions_unseen": sum(not level.observed for level in known),
        "n_conditions_extrapolated": sum(level.extrapolated for level in known),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def draw_names(names: Iterable[str], draw: int) -> list[str]:
    """Return the names of the cells of a draw: their own for the first, else with its number."""
    return [f"{name}-{draw}" if draw else str(name) for name in names]


def chosen_seed(seed: int | None) -> int:
    """Return a seed, drawn where none is given."""
    return int(np.random.default_rng().integers(2**31)) if seed is None else int(seed)
