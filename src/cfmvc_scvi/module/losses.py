"""Losses of the flow as pure functions of a velocity field and coupled pairs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cfmvc_scvi.flow import integrate, straight_path

__all__ = ["flow_matching_loss", "mmd_loss", "squared_distances"]


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


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return |a_i - b_j|^2 of rows, `(n, m)`; unlike the square of `torch.cdist`, with a gradient where they meet."""
    return (a.square().sum(-1)[:, None] + b.square().sum(-1)[None] - 2 * a @ b.T).clamp(min=0)


def mmd_loss(field: nn.Module, pairs: dict[str, Tensor], bandwidths: Tensor, *, n_steps: int = 5) -> Tensor:
    r"""Return the squared MMD of cells that the flow moves and observed cells, averaged over groups by their size.

    Per group (condition, context, batch) the unbiased estimate of Gretton et al. 2012 (JMLR 13:723, eq. 3), which may
    be negative: pairs of different cells within the moved cells x and within the observed cells y, all pairs between.

    .. math:: E \, k(x, x') + E \, k(y, y') - 2 E \, k(x, y), \quad
              k(a, b) = \mathrm{mean}_h \exp(-|a - b|^2 / 2 h^2)

    The gradient reaches the field through all steps of the solver (midpoint).

    Parameters
    ----------
    field
        Velocity field called as `field(z, t, design, context)`.
    pairs
        ``z_0``, ``design`` and ``context`` as of `flow_matching_loss`; ``observed`` `(pairs, d)`, cells of the same
        group, drawn independently of the pairs; ``group``, ``source_cell`` and ``observed_cell`` `(pairs,)`, whole
        numbers. Pairs of group -1 take no part, and neither do groups without two different cells on each side.
    bandwidths
        `(n,)` lengths h of the kernel.
    n_steps
        Steps of the solver.
    """
    chosen = pairs["group"] >= 0
    kept = {key: value[chosen] for key, value in pairs.items()}
    if not len(kept["z_0"]):
        return pairs["z_0"].sum() * 0.0
    moved = integrate(
        lambda z, t: field(z, t, kept["design"], kept["context"]),
        kept["z_0"],
        method="midpoint",
        n_steps=n_steps,
    ).z
    observed = kept["observed"].to(moved.dtype)
    codes, code = torch.unique(kept["group"], return_inverse=True)
    same = code[:, None] == code[None]

    def mean_kernel(a: Tensor, b: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        kernel = torch.exp(-0.5 * squared_distances(a, b)[..., None] / bandwidths.square()).mean(-1)
        rows = torch.stack([(kernel * mask).sum(1), mask.to(kernel.dtype).sum(1)])
        total, number = rows.new_zeros(2, len(codes)).index_add(1, code, rows)
        return total / number.clamp(min=1), number

    def different(cell: Tensor) -> Tensor:
        return same & (cell[:, None] != cell[None])

    within_x, n_x = mean_kernel(moved, moved, different(kept["source_cell"]))
    within_y, n_y = mean_kernel(observed, observed, different(kept["observed_cell"]))
    between, _ = mean_kernel(moved, observed, same)
    weight = torch.bincount(code, minlength=len(codes)) * ((n_x > 0) & (n_y > 0))
    return (weight * (within_x + within_y - 2 * between)).sum() / weight.sum().clamp(min=1)
