"""Questions about cells of registered data: which cells, what is asked of them, and their answers as AnnData."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS

from cfmvc_scvi._keys import CFMVC_REGISTRY_KEYS
from cfmvc_scvi.data import CountRows
from cfmvc_scvi.model.answer import condition_columns
from cfmvc_scvi.model.cells import CellBatch, Group, Groups, input_columns
from cfmvc_scvi.model.level import Level
from cfmvc_scvi.model.networks import Inputs
from cfmvc_scvi.model.prediction import Parts, draw_names
from cfmvc_scvi.model.question import Change, asked_groups, levels
from cfmvc_scvi.model.trust import trust_of_cells

__all__ = ["Asked", "minibatches", "with_parts"]

_BATCH = 1024
_NOT_READ = {REGISTRY_KEYS.X_KEY, REGISTRY_KEYS.MINIFY_TYPE_KEY, CFMVC_REGISTRY_KEYS.PERTURBATION_KEY}


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
        own = next(iter(changes.values())).own(_registered(model, data, rows))
        wanted = {name: change.wanted(own) for name, change in changes.items()}
        taken_to = {name: asked_groups(model._known, own, groups, strength) for name, groups in wanted.items()}
        return cls(rows, names, own, wanted, taken_to)

    def groups_of(self, cells: NDArray[np.int64]) -> dict[str | None, Groups]:
        """Return the groups that these of the cells are taken to, by the name of the answer."""
        return {name: groups.take(cells) for name, groups in self.taken_to.items()}

    def levels(self, model: Any) -> dict[Group, Level]:
        """Return the level of each group asked for; errors as in `question.levels`."""
        found: dict[Group, Level] = {}
        for groups in self.wanted.values():
            found |= levels(model._known, self.own, groups)
        return found

    def obs(self, model: Any, data: Any, trust: bool) -> pd.DataFrame:
        """Return the columns of the cells with their conditions, and with how far an answer can be relied on."""
        obs = data.obs.iloc[self.rows]
        obs = obs[[column for column in obs if not str(column).startswith("_scvi")]]
        obs = obs.assign(**condition_columns(model._known, self.own, "source"))
        for name, groups in self.wanted.items():
            columns = condition_columns(model._known, groups, "target")
            if name is not None:  # the name of the answer says it
                del columns["target_condition"]
            obs = obs.assign(**columns)
            if trust:
                obs[_named("trust", name)] = trust_of_cells(model._known, self.own, groups)
        return obs


def _named(what: str, name: str | None) -> str:
    return what if name is None else f"{what}_{name}"


def minibatches(
    model: Any, data: Any, asked: Asked, numbers: Sequence[int] | None = None, size: int | None = None
) -> Iterator[tuple[NDArray[np.int64], CellBatch]]:
    """Iterate over the cells asked about: which of them, and all that the networks read of them.

    Parameters
    ----------
    model, data, asked
        The model, registered data, and the question.
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
    niche, manager = _niche(model, data), model.get_anndata_manager(data, required=True)
    get, keys = manager.get_from_registry, set(manager.data_registry) - _NOT_READ
    inputs = {key: input_columns(get(key)) for key in sorted(keys)}
    counts = CountRows(get(REGISTRY_KEYS.X_KEY), np.arange(data.n_obs))
    wanted = next(iter(asked.taken_to.values()))
    for cells in chosen:
        cells = cells[np.argsort(asked.rows[cells], kind="stable")]  # the order in which files are read fastest
        rows = asked.rows[cells]
        near = None if niche is None else niche[rows]
        groups = asked.own.take(cells), wanted.take(cells)
        own = {key: values[rows] for key, values in inputs.items()}
        yield cells, CellBatch(own, counts[rows], asked.names[cells], *groups, near)


def with_parts(parts: Parts, obs: pd.DataFrame, var: pd.DataFrame) -> AnnData:
    """Return cells with these parts; several draws of the same cells below each other, numbered in ``obs["draw"]``."""
    draws = [parts[place] for place in parts if place == "X" or place.startswith("X ")]
    latents = {place: value for place, value in parts.items() if place.startswith("obsm/")}
    if len(draws) > 1:
        names = draw_names(obs.index, len(draws))
        obs = pd.concat([obs.assign(draw=number) for number in range(len(draws))])
        obs.index = names
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


def _registered(model: Any, data: Any, rows: NDArray[np.int64]) -> Inputs:
    """Return the design and the codes of these cells of registered data."""
    manager, keys = model.get_anndata_manager(data, required=True), CFMVC_REGISTRY_KEYS
    names = [keys.LABELS_KEY, keys.BATCH_KEY, *([keys.SAMPLE_KEY] * model._has_samples)]
    codes = {name: np.asarray(manager.get_from_registry(name))[rows] for name in names}
    return codes | {keys.PERTURBATION_KEY: manager.get_from_registry(keys.PERTURBATION_KEY)[rows]}
