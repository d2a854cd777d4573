"""Losses of the flow as pure functions of a velocity field and coupled pairs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cfmvc_scvi.flow import straight_path

__all__ = ["flow_matching_loss"]


def flow_matching_loss(field: nn.Module, pairs: dict[str, Tensor], time: Tensor) -> Tensor:
    r"""Return the conditional flow matching loss of coupled pairs.

    Lipman et al. 2023, eq. 9, for the straight path of Tong et al. 2024.

    .. math:: L_2 = E \, | v(z_t, t \mid p, c) - (z_1 - z_0) |^2 / d

    Parameters
    ----------
    field
        Velocity field called as `field(z, t, design, context)`.
    pairs
        ``z_0``, ``z_1`` `(pairs, d)`, ``design`` and ``context``. Detached by the caller where no gradient may pass.
    time
        `(pairs,)` path times in [0, 1].
    """
    path = straight_path(pairs["z_0"], pairs["z_1"], time)
    velocity = field(path.z_t, path.t, pairs["design"], pairs["context"])
    return torch.mean((velocity.float() - path.target.float()) ** 2)
