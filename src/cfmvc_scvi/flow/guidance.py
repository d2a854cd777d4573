"""Guidance: strengthen or weaken what a condition adds to a velocity."""

from __future__ import annotations

__all__ = ["guided"]

import torch
from torch import Tensor


def guided(v_null: Tensor, v_condition: Tensor, scale: float | Tensor) -> Tensor:
    """Extrapolate from the velocity without to the velocity with the condition: v_null + scale (v_condition - v_null).

    Parameters
    ----------
    v_null
        Velocity under the null condition, shape (cells, dimensions).
    v_condition
        Velocity under the condition, shape (cells, dimensions).
    scale
        Guidance scale, without unit; 0 returns `v_null` and 1 returns `v_condition`, both bit for bit. Above 1 it only
        compensates an under-trained flow. A tensor must broadcast against the velocities, e.g. shape (cells, 1).

    References
    ----------
    Ho and Salimans, Classifier-free diffusion guidance, 2022, whose w is scale - 1; Zheng et al., Guided flows for
    generative modeling and decision making, 2023, for velocity fields.

    Examples
    --------
    >>> guided(torch.tensor([[1.0]]), torch.tensor([[2.0]]), 3.0).item()
    4.0
    """
    return torch.lerp(v_null, v_condition, scale)  # lerp works from the nearer end, hence exact at 0 and at 1
