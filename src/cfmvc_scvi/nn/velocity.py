"""Velocity field: a base that every cell follows, and the effect of a perturbation on top."""

from __future__ import annotations

__all__ = ["VelocityComponents", "VelocityField"]

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.functional import silu

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.nn.blocks import TimeEmbedding, require_width, shrink_
from cfmvc_scvi.nn.condition import PerturbationEncoder
from cfmvc_scvi.nn.context import ContextEncoder

# Last layers relative to torch's initial weights; at 1 the untrained field moves cells, and the fit ends worse.
_INITIAL_SCALE = 0.01


class VelocityComponents(NamedTuple):
    """Summands `base` and `effect` of a velocity, (cells, n_latent), and the coefficients `alpha`, (cells, n_basis)."""

    base: Tensor
    effect: Tensor
    alpha: Tensor


class VelocityField(nn.Module):
    """Velocity of a cell in the latent: a base, plus a low-rank effect of its perturbation.

    v(z, t | p, c) = v_base(h) + w sum_j alpha_j(p, c) B_j(h),   h = trunk(z, time embedding, context embedding)

    with guidance scale w and basis fields B_j(h) = U (m_j * h), which share the matrix U. The effect depends on the
    cell through h. It is exactly zero for control, whatever the context, and then v = v_base.

    Parameters
    ----------
    n_latent
        Dimensions of the state z.
    n_perturbations
        Number of perturbations, i.e. columns of the design.
    n_context_features
        Number of features of a context.
    n_hidden
        Width of the trunk and of the context embedding.
    n_layers
        Hidden layers of the trunk, at least 1.
    n_basis
        Number of basis fields, which bounds the rank of the effect over conditions.
    n_time_features
        Number of features of the time embedding, even.
    n_embedding
        Width of the embedding of a perturbation.

    Raises
    ------
    DataError
        If `n_layers` is not positive or `n_time_features` is odd.

    Notes
    -----
    Sharing U between the basis fields makes a training step cheaper than one matrix for each, and fits planted effects
    better. Layer norm in the trunk, a wider embedding of the perturbation or more time features brought nothing.

    Initial weights come from torch's global generator; seed it before construction.

    Examples
    --------
    >>> import torch
    >>> field = VelocityField(n_latent=4, n_perturbations=2, n_context_features=3)
    >>> z, context = torch.randn(5, 4), torch.randn(5, 3)
    >>> control = torch.zeros(5, 2)
    >>> torch.equal(field(z, torch.tensor(0.5), control, context), field.base(z, torch.tensor(0.5), context))
    True
    """

    def __init__(
        self,
        n_latent: int,
        n_perturbations: int,
        n_context_features: int,
        *,
        n_hidden: int = 128,
        n_layers: int = 2,
        n_basis: int = 16,
        n_time_features: int = 8,
        n_embedding: int = 32,
    ) -> None:
        super().__init__()
        if n_layers < 1:
            raise DataError(f"n_layers is {n_layers}; pass at least 1")
        self.n_latent = n_latent
        self.context_encoder = ContextEncoder(n_context_features, n_hidden)
        self.perturbation_encoder = PerturbationEncoder(n_perturbations, n_hidden, n_basis, n_embedding=n_embedding)
        self.time_embedding = TimeEmbedding(n_time_features)
        # a first layer on the concatenation (z, time, context), written as a sum: what is constant is computed once
        self.state_in = nn.Linear(n_latent, n_hidden)
        self.time_in = nn.Linear(n_time_features, n_hidden, bias=False)
        self.trunk = nn.ModuleList(nn.Linear(n_hidden, n_hidden) for _ in range(n_layers - 1))
        self.base_out = shrink_(nn.Linear(n_hidden, n_latent), _INITIAL_SCALE)
        self.basis_in = nn.Linear(n_basis, n_hidden, bias=False)
        self.basis_out = shrink_(nn.Linear(n_hidden, n_latent, bias=False), _INITIAL_SCALE)

    def forward(self, z_t: Tensor, t: Tensor, design: Tensor, context: Tensor, guidance_scale: float = 1.0) -> Tensor:
        """Compute the velocity base + guidance_scale effect.

        Parameters
        ----------
        z_t
            State, shape (cells, n_latent).
        t
            Path time, shape () or (cells,).
        design
            Perturbation design, shape (cells, n_perturbations); control is the zero row.
        context
            Context features, shape (cells, n_context_features).
        guidance_scale
            Factor of the effect; 1 is the field as trained, 0 the base.

        Returns
        -------
        Velocity, shape (cells, n_latent).

        Raises
        ------
        DataError
            If a width is not the one the field was built for, or `t` does not fit the cells.
        """
        return self.at(design, context, guidance_scale)(z_t, t)

    def at(self, design: Tensor, context: Tensor, guidance_scale: float = 1.0) -> Callable[[Tensor, Tensor], Tensor]:
        """Fix the condition, and return the velocity as a function of state and time, which is what a solver takes.

        Context embedding and coefficients are computed once, not at each evaluation. Parameters as in `forward`.
        """
        embedded = self.context_encoder(context)
        # U (h * sum_j alpha_j m_j) is sum_j alpha_j B_j(h)
        modulation = self.basis_in(self.perturbation_encoder(design, embedded))

        def velocity(z_t: Tensor, t: Tensor) -> Tensor:
            hidden = self._hidden(z_t, t, embedded)
            return self.base_out(hidden) + guidance_scale * self.basis_out(hidden * modulation)

        return velocity

    def base(self, z_t: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """Compute the velocity of control cells, shape (cells, n_latent). Parameters as in `forward`."""
        return self.base_out(self._hidden(z_t, t, self.context_encoder(context)))

    def components(self, z_t: Tensor, t: Tensor, design: Tensor, context: Tensor) -> VelocityComponents:
        """Compute base, effect and coefficients apart, e.g. to penalise the last two. Parameters as in `forward`."""
        embedded = self.context_encoder(context)
        alpha = self.perturbation_encoder(design, embedded)
        hidden = self._hidden(z_t, t, embedded)
        effect = self.basis_out(hidden * self.basis_in(alpha))
        return VelocityComponents(self.base_out(hidden), effect, alpha)

    def _hidden(self, z_t: Tensor, t: Tensor, embedded: Tensor) -> Tensor:
        """Run the trunk: (cells, n_hidden)."""
        require_width("z_t", z_t, self.n_latent)
        if t.ndim > 1 or (t.ndim == 1 and t.shape[0] != z_t.shape[0]):
            raise DataError(f"t has shape {tuple(t.shape)} for {z_t.shape[0]} cells; pass a scalar or one per cell")
        hidden = silu(self.state_in(z_t) + self.time_in(self.time_embedding(t)) + embedded)
        for layer in self.trunk:
            hidden = silu(layer(hidden))
        return hidden
