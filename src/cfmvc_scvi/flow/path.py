"""Probability paths: the point between source and target, and the velocity a field has to learn there."""

from __future__ import annotations

__all__ = ["PathSample", "straight_path"]

from dataclasses import dataclass

from torch import Tensor

from cfmvc_scvi.errors import DataError


@dataclass(frozen=True)
class PathSample:
    """A point of a path with its velocity, made together so that the two can never disagree.

    Parameters
    ----------
    z_t
        State at time `t`, shape (cells, dimensions).
    t
        Path time from 0 (source) to 1 (target), shape () or (cells,).
    target
        Velocity dz_t/dt at `t`, shape (cells, dimensions); the regression target of the velocity field.
    """

    z_t: Tensor
    t: Tensor
    target: Tensor


def straight_path(z_0: Tensor, z_1: Tensor, t: Tensor) -> PathSample:
    """Walk in a straight line at constant speed from source to target: z_t = (1 - t) z_0 + t z_1, target z_1 - z_0.

    Parameters
    ----------
    z_0
        Source states, shape (cells, dimensions).
    z_1
        Target states, the partner of each source in the same row, shape (cells, dimensions).
    t
        Path time in [0, 1], shape () or (cells,).

    Returns
    -------
    The point and its velocity; at t = 0 and t = 1 the point is `z_0` and `z_1` themselves.

    Raises
    ------
    DataError
        If the shapes do not fit; nothing is broadcast between cells.

    References
    ----------
    Liu, Gong and Liu, Flow straight and fast, ICLR 2023, equation 1; Tong et al., Improving and generalizing flow-based
    generative models with minibatch optimal transport, TMLR 2024, equations 14 and 15 with sigma = 0.

    Examples
    --------
    >>> import torch
    >>> sample = straight_path(torch.zeros(1, 2), torch.tensor([[4.0, 8.0]]), torch.tensor(0.25))
    >>> sample.z_t.tolist(), sample.target.tolist()
    ([[1.0, 2.0]], [[4.0, 8.0]])
    """
    if z_0.ndim != 2 or z_0.shape != z_1.shape:
        raise DataError(
            f"z_0 has shape {tuple(z_0.shape)} and z_1 {tuple(z_1.shape)}; pass two matrices (cells, dimensions) "
            "whose rows are paired"
        )
    if t.ndim > 1 or (t.ndim == 1 and t.shape[0] != z_0.shape[0]):
        raise DataError(f"t has shape {tuple(t.shape)} for {z_0.shape[0]} cells; pass a scalar or one time per cell")
    weight = t[:, None] if t.ndim == 1 else t
    return PathSample(z_t=(1 - weight) * z_0 + weight * z_1, t=t, target=z_1 - z_0)
