"""Answers to a question about many cells: minibatch by minibatch, in memory or on disk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS

from cfmvc_scvi._keys import CFMVC_REGISTRY_KEYS
from cfmvc_scvi.model.answer import condition_columns
from cfmvc_scvi.model.cells import CellBatch, Group, Groups, module_tensors
from cfmvc_scvi.model.engine import Engine
from cfmvc_scvi.model.level import Level
from cfmvc_scvi.model.plan import Observation
from cfmvc_scvi.model.question import Change, asked_groups, levels
from cfmvc_scvi.model.trust import trust_of_cells

__all__ = ["OBSERVED_KEY", "Asked", "Parts", "answered", "gathered", "minibatches", "with_parts"]

OBSERVED_KEY = "obsm/X_cfmvc"
_BATCH = 1024

#: Pieces of an AnnData by their place in it, such as ``"layers/A"``: CSR counts, or dense.
Parts: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """The cells asked about, and what they are asked for.

    Attributes
    ----------
    rows
        `(cells,)` positions in the data.
    names
        `(cells,)` names, which key the noise.
    own
        Group of each cell.
    wanted
        Groups asked for by the name of the answer; one answer alone has no name.
    taken_to
        Groups that the cells are taken to, by the same names: their own where no effect is asked for.
    """

    rows: NDArray[np.int64]
    names: NDArray[np.str_]
    own: Groups
    wanted: dict[str | None, Groups]
    taken_to: dict[str | None, Groups]

    @classmethod
    def of(
        cls, model: Any, data: Any, rows: NDArray[np.int64], changes: dict[str | None, Change], strength: float
    ) -> Asked:
        """Ask for cells at these positions of registered data under the conditions of `changes`."""
        names = np.asarray(model._rna(data).obs_names, dtype=str)[rows]
        own = next(iter(changes.values())).own(model.get_anndata_manager(data, required=True), rows)
        wanted = {name: change.wanted(own) for name, change in changes.items()}
        taken_to = {name: asked_groups(model, own, groups, strength) for name, groups in wanted.items()}
        return cls(rows, names, own, wanted, taken_to)

    def levels(self, model: Any) -> dict[Group, Level]:
        """Return the level of each group asked for; errors as in `question.levels`."""
        found: dict[Group, Level] = {}
        for groups in self.wanted.values():
            found |= levels(model, self.own, groups)
        return found

    def obs(self, model: Any, data: Any, trust: bool) -> pd.DataFrame:
        """Return the columns of the cells with their conditions, and with how far an answer can be relied on."""
        obs = data.obs.iloc[self.rows]
        obs = obs[[column for column in obs if not str(column).startswith("_scvi")]]
        obs = obs.assign(**condition_columns(model, self.own, "source"))
        for name, groups in self.wanted.items():
            columns = condition_columns(model, groups, "target")
            if name is not None:  # the name of the answer says it
                del columns["target_condition"]
            obs = obs.assign(**columns)
            if trust:
                obs[_named("trust", name)] = trust_of_cells(model, self.own, groups)
        return obs


def _named(what: str, name: str | None) -> str:
    return what if name is None else f"{what}_{name}"


def minibatches(
    model: Any, engine: Engine, data: Any, asked: Asked, numbers: Sequence[int] | None = None, size: int | None = None
) -> Iterator[tuple[NDArray[np.int64], CellBatch]]:
    """Iterate over the cells asked about: which of them, and all that the module reads of them.

    Parameters
    ----------
    model, engine, data, asked
        The model, its networks, registered data, and the question.
    numbers
        Which minibatches; None is all.
    size
        Cells in each but the last; None is 1024.
    """
    size = size or _BATCH
    n_batches = -(-len(asked.rows) // size)
    chosen = [
        np.arange(i * size, min((i + 1) * size, len(asked.rows)))
        for i in (range(n_batches) if numbers is None else numbers)
    ]
    niche = _niche(model, data)
    if model._rna(data).isbacked:  # scvi reads files in the order of their rows, whatever the order asked for
        chosen = [cells[np.argsort(asked.rows[cells], kind="stable")] for cells in chosen]
    loader = model._make_data_loader(data, indices=asked.rows[np.concatenate(chosen)], batch_size=size)
    wanted = next(iter(asked.taken_to.values()))
    for cells, tensors in zip(chosen, loader, strict=True):
        counts = sp.csr_matrix(tensors[REGISTRY_KEYS.X_KEY].cpu().numpy())
        tensors = module_tensors(tensors, engine.device, engine.dtype)
        near = None if niche is None else niche[asked.rows[cells]]
        groups = asked.own.take(cells), wanted.take(cells)
        yield cells, CellBatch(tensors, counts, asked.names[cells], *groups, near)


def answered(
    cells: NDArray[np.int64], batch: CellBatch, asked: Asked, observations: Sequence[Observation], output: str
) -> Parts:
    """Return the answers for a minibatch, which holds these of the cells asked about; in their order."""
    engine = observations[0].engine
    wanted = [groups.take(cells) for groups in asked.taken_to.values()]
    observed, moved = engine.latents_under(batch, wanted)
    n, order = engine.module.n_intrinsic, np.argsort(cells, kind="stable")
    parts = {OBSERVED_KEY: _single(observed[:, :n])[order]}
    for name, groups, latents in zip(asked.taken_to, wanted, moved, strict=True):
        parts["obsm/X_cfmvc_counterfactual" if name is None else f"obsm/X_{name}"] = _single(latents[:, :n])[order]
        for observation in observations if output != "latent" else ():
            matrix = observation.matrix(batch.asked(groups), observed, latents, output)
            place = f"layers/{name}" if name is not None else f"X {observation.draw}" if observation.draw else "X"
            parts[place] = matrix.astype(np.float32)[order]
    return parts


def _single(values: torch.Tensor) -> NDArray[np.float32]:
    return values.float().cpu().numpy()


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


def with_parts(parts: Parts, obs: pd.DataFrame, var: pd.DataFrame) -> AnnData:
    """Return cells with these parts; several draws of the same cells below each other, numbered in ``obs["draw"]``."""
    draws = [parts[place] for place in parts if place == "X" or place.startswith("X ")]
    latents = {place: value for place, value in parts.items() if place.startswith("obsm/")}
    if len(draws) > 1:
        names = obs.index
        obs = pd.concat([obs.assign(draw=number) for number in range(len(draws))])
        obs.index = [*names, *(f"{name}-{number}" for number in range(1, len(draws)) for name in names)]
        latents = {place: np.tile(value, (len(draws), 1)) for place, value in latents.items()}
    result = AnnData(sp.vstack(draws, format="csr") if len(draws) > 1 else draws[0] if draws else None, obs, var)
    for place, value in latents.items():
        result.obsm[place.removeprefix("obsm/")] = value
    for place in parts:
        if place.startswith("layers/"):
            result.layers[place.removeprefix("layers/")] = parts[place]
    return result


def _niche(model: Any, data: Any) -> NDArray[np.float32] | None:
    manager = model.get_anndata_manager(data, required=True)
    if CFMVC_REGISTRY_KEYS.SPATIAL_KEY not in manager.data_registry:
        return None
    mean = model.get_latent_representation(data, batch_size=_BATCH)
    u = model.module.standardise(torch.as_tensor(mean, device=model.device)).cpu().numpy()
    return model._niche(manager, u)
