"""The negative binomial of scvi, at the price of the counts that are not zero."""

from __future__ import annotations

__all__ = ["SparseNegativeBinomial"]

from typing import Any

import numpy as np
import torch
from scvi.distributions import NegativeBinomial
from torch import Tensor
from torch.autograd.function import once_differentiable

_EPS = 1e-8  # as in scvi's log_nb_positive


class SparseNegativeBinomial(NegativeBinomial):
    r"""scvi's negative binomial with one dispersion a gene; its log-gamma terms are computed where counts are not zero.

    .. math:: \log p(x) = \theta \log \frac{\theta}{\theta + \mu}
              + [x > 0] \left(x \log \frac{\mu}{\theta + \mu}
              + \log \Gamma(x + \theta) - \log \Gamma(\theta) - \log x!\right)

    Its values and gradients are those of :class:`scvi.distributions.NegativeBinomial`, of which log-gamma and digamma
    take most of the time; in single cells, most counts are zero.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log likelihood of counts `(cells, genes)`; of other shapes, and of other dispersions, by scvi."""
        per_gene = self.theta.dim() == 2 and self.theta.stride(0) == 0
        if self.on_mps or not per_gene or value.shape != self.mu.shape:
            return super().log_prob(value)
        return _LogLikelihood.apply(value.contiguous(), self.mu.contiguous(), self.theta[0])


class _LogLikelihood(torch.autograd.Function):
    """Log likelihood and its gradient with respect to mean `(cells, genes)` and dispersion `(genes,)`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mu: Tensor, theta: Tensor) -> Tensor:
        where = _nonzero(x)
        gene, counts = where % len(theta), x.view(-1).index_select(0, where)  # which reads faster than take
        total = mu + (theta + _EPS)
        log_total = total.log()
        ratio = (mu.view(-1).index_select(0, where) + _EPS) / total.view(-1).index_select(0, where)
        of_counts = (
            counts * torch.log(ratio)
            + torch.lgamma(counts + theta.index_select(0, gene))
            - torch.lgamma(theta).index_select(0, gene)
            - torch.lgamma(counts + 1)
        )
        ctx.save_for_backward(x, mu, theta, total, log_total, where, gene, counts)
        result = log_total.neg().add_((theta + _EPS).log()).mul_(theta)
        result.view(-1).index_add_(0, where, of_counts)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        x, mu, theta, total, log_total, where, gene, counts = ctx.saved_tensors
        to_mu = to_theta = None
        ratio = (x + theta).div_(total)
        if ctx.needs_input_grad[1]:
            to_mu = ratio.neg()
            to_mu.view(-1).index_add_(0, where, counts / (mu.view(-1).index_select(0, where) + _EPS))
            to_mu *= grad
        if ctx.needs_input_grad[2]:
            slope = log_total.neg().sub_(ratio).add_((theta + _EPS).log() + theta / (theta + _EPS))
            of_counts = torch.digamma(counts + theta.index_select(0, gene)) - torch.digamma(theta).index_select(0, gene)
            slope.view(-1).index_add_(0, where, of_counts)
            to_theta = slope.mul_(grad).sum(dim=0)
        return None, to_mu, to_theta


def _nonzero(x: Tensor) -> Tensor:
    """Return the positions of what is not zero in a contiguous tensor seen as a vector."""
    if x.device.type == "cpu":  # several times faster than torch's
        return torch.from_numpy(np.flatnonzero(x.numpy() != 0))
    return x.view(-1).nonzero().squeeze(1)
