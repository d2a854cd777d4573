"""The negative binomial of scvi, at the price of the counts that are not zero."""

from __future__ import annotations

__all__ = ["SparseNegativeBinomial"]

from typing import Any

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
        where = x.flatten().nonzero().squeeze(1)  # one index is read several times faster than two
        total = mu + (theta + _EPS)
        gene, counts = where % len(theta), x.take(where)
        of_counts = (
            counts * torch.log((mu.take(where) + _EPS) / total.take(where))
            + torch.lgamma(counts + theta.take(gene))
            - torch.lgamma(theta).take(gene)
            - torch.lgamma(counts + 1)
        )
        ctx.save_for_backward(x, mu, theta, total, where)
        result = total.log().neg_().add_((theta + _EPS).log()).mul_(theta)
        result.view(-1).index_add_(0, where, of_counts)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        x, mu, theta, total, where = ctx.saved_tensors
        gene, counts = where % len(theta), x.take(where)
        to_mu = to_theta = None
        ratio = (x + theta).div_(total)
        if ctx.needs_input_grad[1]:
            to_mu = ratio.neg()
            to_mu.view(-1).index_add_(0, where, counts / (mu.take(where) + _EPS))
            to_mu *= grad
        if ctx.needs_input_grad[2]:
            slope = total.log().neg_().sub_(ratio).add_((theta + _EPS).log() + theta / (theta + _EPS))
            slope.view(-1).index_add_(
                0, where, torch.digamma(counts + theta.take(gene)) - torch.digamma(theta).take(gene)
            )
            to_theta = slope.mul_(grad).sum(dim=0)
        return None, to_mu, to_theta
