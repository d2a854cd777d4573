"""Encoder of the context of a cell."""

from __future__ import annotations

__all__ = ["ContextEncoder"]

from torch import Tensor, nn

from cfmvc_scvi.nn.blocks import MLP, require_width


class ContextEncoder(nn.Module):
    """Embed what is measured of a context: LayerNorm(MLP(features)).

    The features describe the context (mean control latent; where wanted also continuous covariates and the niche), and
    no row is looked up by its name, so that a context never seen in training has an embedding too. The layer norm keeps
    the embedding of a far-away context as short as that of a near one.

    Parameters
    ----------
    n_context_features
        Number of features of a context, standardised by the caller.
    n_hidden
        Width of the hidden layer and of the embedding.
    """

    def __init__(self, n_context_features: int, n_hidden: int) -> None:
        super().__init__()
        self.n_context_features = n_context_features
        self.mlp = MLP(n_context_features, n_hidden, n_hidden)
        self.norm = nn.LayerNorm(n_hidden)

    def forward(self, context: Tensor) -> Tensor:
        """Embed context features of shape (cells, n_context_features) as (cells, n_hidden).

        Raises
        ------
        DataError
            If the number of features is not the one the encoder was built for.
        """
        require_width("context", context, self.n_context_features)
        return self.norm(self.mlp(context))
