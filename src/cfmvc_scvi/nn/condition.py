"""Encoder of the perturbation of a cell, exactly zero at control."""

from __future__ import annotations

__all__ = ["PerturbationEncoder"]

import torch
from torch import Tensor, nn

from cfmvc_scvi.nn.blocks import MLP, require_width


class PerturbationEncoder(nn.Module):
    """Turn a perturbation design and a context into the coefficients alpha of the basis fields.

    alpha(p, c) = W (e * gate(e, c)),   e = p E,   gate = 1 + tanh(MLP(e, c)), elementwise

    For control, p = 0, so e = 0 and alpha = 0 exactly, whatever the weights, the context and the precision: alpha is a
    product with the design, and no bias follows. With a constant gate the effects of a combination would add up and a
    dose would act linearly; the gate, which sees the whole combination and the context, bends both.

    Parameters
    ----------
    n_perturbations
        Number of perturbations, i.e. columns of the design; one is enough.
    n_context_embedding
        Width of the context embedding.
    n_basis
        Number of basis fields.
    n_embedding
        Width of the embedding e of a perturbation.
    """

    def __init__(self, n_perturbations: int, n_context_embedding: int, n_basis: int, *, n_embedding: int = 32) -> None:
        super().__init__()
        self.n_perturbations = n_perturbations
        self.embedding = nn.Parameter(torch.randn(n_perturbations, n_embedding))
        self.gate = MLP(n_embedding + n_context_embedding, n_embedding, n_embedding)
        self.out = nn.Linear(n_embedding, n_basis, bias=False)

    def forward(self, design: Tensor, context_embedding: Tensor) -> Tensor:
        """Compute alpha.

        Parameters
        ----------
        design
            Multi-hot or dose-weighted perturbation design, shape (cells, n_perturbations); control is the zero row.
        context_embedding
            Embedded context, shape (cells, n_context_embedding).

        Returns
        -------
        Coefficients, shape (cells, n_basis); zero where the design is zero.

        Raises
        ------
        DataError
            If the design does not have one column per perturbation.
        """
        require_width("design", design, self.n_perturbations)
        e = design @ self.embedding
        gate = 1 + torch.tanh(self.gate(torch.cat([e, context_embedding], dim=1)))
        return self.out(e * gate)
