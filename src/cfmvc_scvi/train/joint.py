"""Pairs of stage 3: control and perturbed cells coupled within a minibatch, with the gradient of their latents."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from cfmvc_scvi._keys import CFMVC_REGISTRY_KEYS
from cfmvc_scvi.flow import optimal_coupling

__all__ = ["MinibatchCoupler"]


@dataclass(frozen=True)
class MinibatchCoupler:
    """Couples the cells of a minibatch of counts by optimal transport within each (condition, context).

    Attributes
    ----------
    context_of
        `(labels, samples)` context code of each pair of codes, -1 where unseen.
    context_features
        `(contexts, features)`.
    designs
        `(conditions, perturbations)`; row 0 is zero.
    offsets
        `(conditions, contexts, dims)` moving frame, held fixed.
    axes
        `(dims, axes)` directions in which the cells are coupled (see `train.latents.principal_axes`).
    source
        ``"control"`` or ``"noise"``.
    rng
        Generator of the coupling.
    """

    context_of: np.ndarray
    context_features: np.ndarray
    designs: np.ndarray
    offsets: np.ndarray
    axes: np.ndarray
    source: str
    rng: Generator

    def state(self) -> dict[str, Any]:
        """Return everything of it as plain values and arrays."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"rng": self.rng.bit_generator.state}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild the coupler from its `state`; it goes on with the same random numbers."""
        rng = np.random.default_rng()
        rng.bit_generator.state = state["rng"]
        return cls(**(state | {"rng": rng}))

    def __call__(self, batch: dict[str, Tensor], u: Tensor, mean: Tensor) -> dict[str, Tensor] | None:
        """Return coupled pairs of the minibatch, or None where it holds none.

        Parameters
        ----------
        batch
            A minibatch of the registered data.
        u
            `(cells, dims)` latents in the flow's coordinates, drawn from the posterior, with gradient.
        mean
            `(cells, dims)` means of that posterior, by which the cells are coupled.
        """
        condition, context = self._codes(batch)
        if self.source == "noise":  # the centre of a condition is not known in contexts without control cells
            source = target = np.flatnonzero(np.isfinite(self.offsets[condition, context]).all(axis=1))
        else:
            source, target = self._couple(mean, condition, context)
        if not len(target):
            return None
        kind, place = condition[target], context[target]
        offset = u.new_tensor(self.offsets[kind, place])
        if self.source == "noise":
            z_0, z_1 = torch.randn_like(offset), u[target] - offset
        else:
            z_0, z_1 = u[source] + offset, u[target]
        return {
            "z_0": z_0,
            "z_1": z_1,
            "design": u.new_tensor(self.designs[kind]),
            "context": u.new_tensor(self.context_features[place]),
        }

    def _codes(self, batch: dict[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
        design = batch[CFMVC_REGISTRY_KEYS.PERTURBATION_KEY].cpu().numpy()
        condition = np.abs(design[:, None] - self.designs[None]).sum(-1).argmin(1)
        labels, samples = (_column(batch, key) for key in ("labels", CFMVC_REGISTRY_KEYS.SAMPLE_KEY))
        return condition, self.context_of[labels, samples]

    def _couple(self, mean: Tensor, condition: np.ndarray, context: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        position, sources, targets = mean.detach().cpu().numpy(), [], []
        for kind, place in np.unique(np.column_stack([condition, context])[condition > 0], axis=0):
            control = np.flatnonzero((condition == 0) & (context == place))
            perturbed = np.flatnonzero((condition == kind) & (context == place))
            if len(control):
                start = (position[control] + self.offsets[kind, place]) @ self.axes
                end = position[perturbed] @ self.axes
                i, j = optimal_coupling(start, end, self.rng, max_cells=len(position))
                sources.append(control[i])
                targets.append(perturbed[j])
        empty = np.empty(0, dtype=int)
        return np.concatenate([empty, *sources]), np.concatenate([empty, *targets])


def _column(batch: dict[str, Tensor], key: str) -> np.ndarray:
    return batch[key].long().flatten().cpu().numpy()
