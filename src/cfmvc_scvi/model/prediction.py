"""Answers to a question about cells, as arrays: the same code with torch and without."""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from cfmvc_scvi.config import SolverConfig
from cfmvc_scvi.model.cells import CellBatch, Groups
from cfmvc_scvi.model.level import Level
from cfmvc_scvi.model.plan import Observation
from cfmvc_scvi.model.question import Known
from cfmvc_scvi.model.shares import Shares, decoder_of

__all__ = [
    "OBSERVED_KEY",
    "Parts",
    "answered",
    "chosen_seed",
    "draw_names",
    "gathered",
    "group_names",
    "provenance",
]

OBSERVED_KEY = "obsm/X_cfmvc"

#: Pieces of an AnnData by their place in it, such as ``"layers/A"``: CSR counts, or dense.
Parts: TypeAlias = dict[str, Any]


def answered(
    batch: CellBatch, wanted: Mapping[str | None, Groups], observations: Sequence[Observation], output: str
) -> Parts:
    """Return the answers for a minibatch of cells.

    Parameters
    ----------
    batch
        The cells, with their own groups.
    wanted
        Groups that they are taken to, by the name of the answer; one answer alone has no name.
    observations
        One per draw of the noise, all with one engine.
    output
        As in `CFMVC.predict_counterfactual`.

    Raises
    ------
    NonFiniteError
        If the ODE leaves the finite numbers.
    """
    engine = observations[0].engine
    observed, moved = engine.latents_under(batch, list(wanted.values()))
    n = engine.networks.n_intrinsic
    parts: Parts = {OBSERVED_KEY: observed[:, :n].astype(np.float32)}
    asked = {name: batch.asked(groups) for name, groups in wanted.items()}
    changed = {name: np.flatnonzero(each.changed()) for name, each in asked.items()}
    needed = np.unique(np.concatenate(list(changed.values()))) if output == "counts" else None
    before = decoder_of(engine.networks, observed, batch.inputs, needed)
    for (name, each), latents in zip(asked.items(), moved, strict=True):
        place = "obsm/X_cfmvc_counterfactual" if name is None else f"obsm/X_{name}"
        parts[place] = latents[:, :n].astype(np.float32)
        after = decoder_of(engine.networks, latents, each.with_wanted_batch(), changed[name])
        shares = Shares(before, after)
        for observation in observations if output != "latent" else ():
            matrix = observation.matrix(each, shares, output)
            place = f"layers/{name}" if name is not None else f"X {observation.draw}" if observation.draw else "X"
            parts[place] = matrix.astype(np.float32)
    return parts


def gathered(chunks: Iterable[Parts]) -> Parts:
    """Return the parts of all chunks below each other."""
    blocks = defaultdict(list)
    for chunk in chunks:
        for place, block in chunk.items():
            blocks[place].append(block)
    return {
        place: sp.vstack(found, format="csr") if sp.issparse(found[0]) else np.concatenate(found)
        for place, found in blocks.items()
    }


def group_names(known: Known, groups: Groups) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    """Return the names of the condition and of the context of each cell, `(cells,)` each."""
    found, code = np.unique(groups.code, return_inverse=True)
    kinds = [groups.kinds[number] for number in found]
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

    `solved` is the number of ODEs that were solved for it, and that of the evaluations that they took; what is told is
    the evaluations of one ODE, because how many are solved depends on what earlier predictions have left.
    """
    known = list(levels)
    return {
        "model": "CFMVC",
        "arguments": {key: value for key, value in arguments.items() if value is not None},
        "versions": dict(versions),
        "solver": {
            **asdict(solver),
            "status": "success" if solved[0] else "not needed",
            "n_evaluations": solved[1] // max(solved[0], 1),
        },
        "reference": "control and perturbed cells of training",
        "n_conditions_unseen": sum(not level.observed for level in known),
        "n_conditions_extrapolated": sum(level.extrapolated for level in known),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def draw_names(names: Iterable[str], n_draws: int) -> list[str]:
    """Return the names of the cells of all draws: their own in the first, then with the number of the draw."""
    known = list(names)
    return [*known, *(f"{name}-{draw}" for draw in range(1, n_draws) for name in known)]


def chosen_seed(seed: int | None) -> int:
    """Return a seed, drawn where none is given."""
    return int(np.random.default_rng().integers(2**31)) if seed is None else int(seed)
