"""Encoder with an intrinsic block, read from the counts, and a technical block, read from batch and depth only."""

from __future__ import annotations

from typing import Any

import torch
from scvi.nn import Encoder, FCLayers
from torch import Tensor
from torch.distributions import Normal

__all__ = ["IntrinsicTechnicalEncoder"]

_TYPICAL_LOG_DEPTH = 7.5  # centres the input of the technical block; the layer learns the rest


class IntrinsicTechnicalEncoder(Encoder):
    r"""Posterior over the concatenation of the two latents.

    .. math:: q(z \mid x, b) = q(z_{intrinsic} \mid x) \; q(z_{technical} \mid b, \log l), \qquad l = \sum_g x_g

    The technical block never sees single genes, so no perturbation signal can leak into what a counterfactual holds
    fixed.

    Parameters
    ----------
    n_input
        Number of genes.
    n_intrinsic
        Dimensions of the intrinsic latent.
    n_technical
        Dimensions of the technical latent; 0 leaves it out.
    n_batch
        Number of batches.
    log_input
        Whether the input is log1p(counts), as scvi's `log_variational` makes it.
    **encoder_kwargs
        Passed to :class:`scvi.nn.Encoder`.
    """

    def __init__(
        self, n_input: int, n_intrinsic: int, n_technical: int, n_batch: int, *, log_input: bool, **encoder_kwargs: Any
    ) -> None:
        super().__init__(n_input, n_intrinsic, n_cat_list=None, return_dist=True, **encoder_kwargs)
        self.n_technical = n_technical
        self.log_input = log_input
        if n_technical:
            # scvi's own layer, so that query mapping grows its batch columns
            self.technical_encoder = FCLayers(
                n_in=1,
                n_out=2 * n_technical,
                n_cat_list=[n_batch],
                n_layers=1,
                dropout_rate=0.0,
                use_batch_norm=False,
                use_activation=False,
            )

    def forward(self, x: Tensor, batch_index: Tensor, *_covariates: Tensor) -> tuple[Normal, Tensor]:
        """Return the posterior and one reparametrised sample; parameters as of `moments`."""
        posterior = Normal(*self.moments(x, batch_index))
        return posterior, posterior.rsample()

    def moments(self, x: Tensor, batch_index: Tensor, depth: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the posterior, `(cells, n_intrinsic + n_technical)` each.

        Parameters
        ----------
        x
            `(cells, genes)` counts, or log1p of them.
        batch_index
            `(cells, 1)` batch codes.
        depth
            `(cells, 1)` counts of each cell, where they are known; None reads them off `x`.
        """
        hidden = self.encoder(x)
        # not in half precision: the variance of a posterior, and what is computed from it, would lose its digits
        mean, raw_variance = (_at_least_single(head(hidden)) for head in (self.mean_encoder, self.var_encoder))
        if self.n_technical:
            if depth is None:
                counts = torch.expm1(_at_least_single(x)) if self.log_input else x
                depth = counts.sum(dim=-1, keepdim=True)
            location, raw = self.technical(depth, batch_index)
            mean, raw_variance = torch.cat([mean, location], dim=-1), torch.cat([raw_variance, raw], dim=-1)
        return mean, (self.var_activation(raw_variance) + self.var_eps).sqrt()

    def technical(self, depth: Tensor, batch_index: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and unconstrained variance of the technical block, `(cells, n_technical)` each.

        Parameters
        ----------
        depth
            `(cells, 1)` counts of each cell.
        batch_index
            `(cells, 1)` batch codes.
        """
        with torch.autocast(device_type=depth.device.type, enabled=False):
            features = self.technical_encoder(torch.log1p(depth) - _TYPICAL_LOG_DEPTH, batch_index)
        return features.chunk(2, dim=-1)


def _at_least_single(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
