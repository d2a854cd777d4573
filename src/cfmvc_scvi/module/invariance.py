"""What a latent tells of a label that it should not know, as a loss."""

from __future__ import annotations

import torch
from torch import Tensor

from cfmvc_scvi.module.losses import squared_distances

__all__ = ["MIN_GROUP", "group_codes", "hsic_loss"]

MIN_GROUP = 4  # cells, below which the unbiased estimate does not exist


def group_codes(*columns: Tensor) -> Tensor:
    """Return one code for each distinct row of columns `(cells,)` or `(cells, n)`, `(cells,)`."""
    rows = torch.cat([column.reshape(len(column), -1).double() for column in columns], dim=1)
    return torch.unique(rows, dim=0, return_inverse=True)[1].reshape(-1)


def hsic_loss(latent: Tensor, label: Tensor, group: Tensor) -> tuple[Tensor, int]:
    r"""Return the Hilbert-Schmidt independence criterion of latent and label within groups, averaged by their size.

    Per group of m cells the unbiased estimate of Song et al. 2012 (JMLR 13:1393, eq. 5), which may be negative; its
    expectation is zero if and only if latent and label are independent there. With K and L without their diagonals:

    .. math:: \frac{1}{m (m - 3)} \left[ tr(K L) + \frac{1^T K 1 \; 1^T L 1}{(m - 1) (m - 2)}
              - \frac{2}{m - 2} 1^T K L 1 \right], \quad
              K_{ij} = e^{-|z_i - z_j|^2 / 2 h^2}, \quad L_{ij} = [y_i = y_j]

    h^2 is half the mean squared distance within groups, but at least 1, the variance of the prior, and no gradient
    passes through it: a latent becomes independent by shrinking only below what the noise of its posterior hides.

    Parameters
    ----------
    latent
        `(cells, dims)`.
    label, group
        Codes `(cells,)`.

    Returns
    -------
    The criterion, and how many cells are in groups of four and more; the others take no part.
    """
    codes, code = torch.unique(group, return_inverse=True)
    size = torch.bincount(code, minlength=len(codes))
    enough = size >= MIN_GROUP
    n_cells = int(size[enough].sum())
    if not n_cells:
        return latent.sum() * 0.0, 0
    latent = latent.double()  # differences of sums over pairs
    pairs = (code[:, None] == code[None]).to(latent.dtype)
    pairs.fill_diagonal_(0.0)
    squared = squared_distances(latent, latent)
    mean_squared = ((squared * pairs).sum() / pairs.sum()).detach().clamp(min=2.0)
    kernel = torch.exp(-squared / mean_squared) * pairs
    equal = (label[:, None] == label[None]) * pairs
    rows = torch.stack([(kernel * equal).sum(1), kernel.sum(1), equal.sum(1), kernel.sum(1) * equal.sum(1)])
    both, of_kernel, of_equal, product = rows.new_zeros(4, len(codes)).index_add(1, code, rows)
    m = size.clamp(min=MIN_GROUP).to(latent.dtype)
    criterion = (both + of_kernel * of_equal / ((m - 1) * (m - 2)) - 2 * product / (m - 2)) / (m * (m - 3))
    return (criterion * size * enough).sum() / n_cells, n_cells
