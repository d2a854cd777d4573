"""The module: scvi's VAE with two latent blocks, and the conditional flow in the intrinsic one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from scvi import REGISTRY_KEYS
from scvi.distributions import NegativeBinomial, Poisson
from scvi.module import VAE
from scvi.module.base import LossOutput
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.nn.utils import parametrize

from cfmvc_scvi._compat import MODULE_KEYS
from cfmvc_scvi._keys import CFMVC_REGISTRY_KEYS
from cfmvc_scvi.config import FlowConfig
from cfmvc_scvi.errors import DataError, UnsupportedError
from cfmvc_scvi.module.encoder import IntrinsicTechnicalEncoder
from cfmvc_scvi.module.invariance import group_codes, hsic_loss
from cfmvc_scvi.module.likelihood import SparseNegativeBinomial
from cfmvc_scvi.nn import VelocityField

__all__ = ["CFMVCModule"]

_LOG_DISPERSION_BOUND = 15.0
_LEAST_RATE = 1e-8


class _SmoothBound(nn.Module):
    """x -> B x / sqrt(B^2 + x^2): bounded by B, with a gradient everywhere (a hard clamp has none outside)."""

    def forward(self, raw: Tensor) -> Tensor:
        return _LOG_DISPERSION_BOUND * raw / torch.sqrt(_LOG_DISPERSION_BOUND**2 + raw**2)

    def right_inverse(self, value: Tensor) -> Tensor:
        bounded = value.clamp(-0.99 * _LOG_DISPERSION_BOUND, 0.99 * _LOG_DISPERSION_BOUND)
        return _LOG_DISPERSION_BOUND * bounded / torch.sqrt(_LOG_DISPERSION_BOUND**2 - bounded**2)


class _Unused(nn.Linear):
    """A layer that the likelihood has no use for: its weights stay where scvi keeps them, and cost no time."""

    @classmethod
    def of(cls, layer: nn.Linear) -> _Unused:
        with torch.device("meta"):  # draws no weights
            unused = cls(layer.in_features, layer.out_features)
        unused.weight, unused.bias = layer.weight, layer.bias
        return unused

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden


def _positive(counts: Poisson) -> Poisson:
    """Return counts whose rate is above zero, by as much as scvi's negative binomial is inside its logarithms.

    The likelihood of a Poisson count has no gradient at rate zero, which an empty cell has and a softmax that
    underflows.
    """
    return Poisson(rate=counts.rate + _LEAST_RATE, scale=counts.scale)


class CFMVCModule(VAE):
    r"""NB-VAE with latents :math:`z = [z_{intrinsic}, z_{technical}]` and a velocity field over :math:`z_{intrinsic}`.

    .. math:: x \sim NB(l \, softmax(f(z, b)), \theta), \qquad z \sim N(0, I)

    The flow lives in the standardised coordinates :math:`u = (z_{intrinsic} - m) / s` (`latent_location`,
    `latent_scale`).

    Parameters
    ----------
    n_input
        Number of genes.
    n_batch, n_labels
        Numbers of batches and of labels (labels only serve `dispersion="gene-label"`).
    n_intrinsic, n_technical
        Dimensions of the two latents.
    n_perturbations
        Columns of the design; 0 builds no flow (`flow` is then None).
    n_niche
        Dimensions of the spatial niche features of the context; 0 without space.
    flow
        Architecture of the flow.
    latent_distribution
        Only ``"normal"``: the flow needs an unbounded latent.
    **vae_kwargs
        Passed to :class:`scvi.module.VAE`.

    Raises
    ------
    ValueError
        If `latent_distribution` is not ``"normal"``.
    UnsupportedError
        If covariates are to be encoded.
    """

    def __init__(
        self,
        n_input: int,
        n_batch: int = 1,
        n_labels: int = 1,
        *,
        n_intrinsic: int,
        n_technical: int,
        n_perturbations: int,
        n_niche: int = 0,
        flow: FlowConfig,
        latent_distribution: Literal["normal"] = "normal",
        **vae_kwargs: Any,
    ) -> None:
        if vae_kwargs.get("encode_covariates"):
            raise UnsupportedError(
                "encode_covariates=True is not supported: the intrinsic latent is read from the counts alone, and the "
                "decoder sees the covariates anyway. Leave it out."
            )
        if latent_distribution != "normal":
            raise ValueError("CFMVC needs latent_distribution='normal': a flow cannot leave the simplex of 'ln'.")
        super().__init__(
            n_input,
            n_batch=n_batch,
            n_labels=n_labels,
            n_latent=n_intrinsic + n_technical,
            latent_distribution=latent_distribution,
            var_activation=softplus,
            **vae_kwargs,
        )
        self.n_intrinsic, self.n_technical = n_intrinsic, n_technical
        self._has_categories = bool(vae_kwargs.get("n_cats_per_cov"))
        batch_norm = vae_kwargs.get("use_batch_norm", "both") in ("encoder", "both")
        layer_norm = vae_kwargs.get("use_layer_norm", "none") in ("encoder", "both")
        self.z_encoder = IntrinsicTechnicalEncoder(
            n_input,
            n_intrinsic,
            n_technical,
            n_batch,
            log_input=self.log_variational,
            n_layers=self.n_layers,
            n_hidden=self.n_hidden,
            dropout_rate=vae_kwargs.get("dropout_rate", 0.1),
            use_batch_norm=batch_norm,
            use_layer_norm=layer_norm,
            var_activation=softplus,
            **(vae_kwargs.get("extra_encoder_kwargs") or {}),
        )
        if self.gene_likelihood != "zinb":  # scvi's decoder computes the share of zeros whatever the likelihood
            self.decoder.px_dropout_decoder = _Unused.of(self.decoder.px_dropout_decoder)
        if isinstance(getattr(self, "px_r", None), nn.Parameter):
            parametrize.register_parametrization(self, "px_r", _SmoothBound())
        self.register_buffer("latent_location", torch.zeros(n_intrinsic))
        self.register_buffer("latent_scale", torch.ones(()))
        self.flow = (
            VelocityField(
                n_intrinsic,
                n_perturbations,
                n_intrinsic + n_niche,
                n_hidden=flow.n_hidden,
                n_layers=flow.n_layers,
                n_basis=flow.n_basis,
            )
            if n_perturbations
            else None
        )

    @property
    def velocity(self) -> VelocityField:
        """The flow; raises DataError where there is none."""
        if self.flow is None:
            raise DataError("The module has no flow; register perturbations before the model is made.")
        return self.flow

    def standardise(self, z_intrinsic: Tensor) -> Tensor:
        """Return the flow's coordinates u of intrinsic latents, `(cells, n_intrinsic)`."""
        return (z_intrinsic - self.latent_location) / self.latent_scale

    def unstandardise(self, u: Tensor) -> Tensor:
        """Return the intrinsic latents of the flow's coordinates, `(cells, n_intrinsic)`."""
        return u * self.latent_scale + self.latent_location

    @torch.no_grad()
    def fit_standardisation(self, z_intrinsic: Tensor) -> None:
        """Set location and (one) scale from the intrinsic latents of the training cells, `(cells, n_intrinsic)`.

        One scale for all dimensions: dimensions that the encoder left unused must not be blown up to unit variance.
        """
        self.latent_location.copy_(z_intrinsic.mean(dim=0))
        self.latent_scale.copy_(z_intrinsic.var(dim=0).mean().sqrt().clamp_min(1e-6))

    def decode_fractions(self, z: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        """Return the expected share of each gene, `(cells, genes)`, rows summing to 1.

        Parameters
        ----------
        z
            `(cells, n_intrinsic + n_technical)`.
        tensors
            A minibatch with the batch, label and covariates to decode under.
        """
        batch, continuous = tensors[REGISTRY_KEYS.BATCH_KEY], tensors.get(REGISTRY_KEYS.CONT_COVS_KEY)
        inputs = [z] if continuous is None else [z, continuous.to(z)]
        categories = list(torch.split(tensors[REGISTRY_KEYS.CAT_COVS_KEY], 1, dim=1)) if self._has_categories else []
        if self.batch_representation == "embedding":
            inputs.append(self.compute_embedding(REGISTRY_KEYS.BATCH_KEY, batch))
        else:
            categories.insert(0, batch)
        with torch.autocast(device_type=z.device.type, enabled=False):
            hidden = self.decoder.px_decoder(torch.cat(inputs, dim=-1), *categories, tensors[REGISTRY_KEYS.LABELS_KEY])
            scale = self.decoder.px_scale_decoder(hidden)  # not the decoder's rates, which cost as much again
        is_share = isinstance(self.decoder.px_scale_decoder[-1], nn.Softmax)
        return scale if is_share else scale / scale.sum(dim=-1, keepdim=True)

    def technical_posterior_mean(self, tensors: dict[str, Tensor]) -> Tensor:
        """Return the mean of the technical latent for the batch and depth in `tensors`, `(cells, n_technical)`."""
        depth = tensors.get(REGISTRY_KEYS.OBSERVED_LIB_SIZE)  # of minified data
        depth = tensors[REGISTRY_KEYS.X_KEY].sum(dim=-1, keepdim=True) if depth is None else depth
        return self.z_encoder.technical(depth, tensors[REGISTRY_KEYS.BATCH_KEY])[0]

    def _get_inference_input(self, tensors: dict[str, Any], full_forward_pass: bool = False) -> dict[str, Any]:
        """Read cached latents where the minibatch has them: the cells that a model remembers have counts instead."""
        full = full_forward_pass or REGISTRY_KEYS.LATENT_QZM_KEY not in tensors
        return super()._get_inference_input(tensors, full_forward_pass=full)

    def generative(
        self,
        z: Tensor,
        library: Tensor,
        batch_index: Tensor,
        cont_covs: Tensor | None = None,
        cat_covs: Tensor | None = None,
        size_factor: Tensor | None = None,
        y: Tensor | None = None,
        transform_batch: Tensor | None = None,
    ) -> dict[str, Any]:
        """Decode as scvi does, never in half precision: eight bits hold neither a rate nor a softmax over genes.

        A negative binomial is that of `module.likelihood`.
        """
        with torch.autocast(device_type=z.device.type, enabled=False):
            outputs = super().generative(
                z, library, batch_index, cont_covs, cat_covs, size_factor, y, transform_batch=transform_batch
            )
        px = outputs[MODULE_KEYS.PX_KEY]
        if type(px) is NegativeBinomial:
            outputs[MODULE_KEYS.PX_KEY] = SparseNegativeBinomial(mu=px.mu, theta=px.theta, scale=px.scale)
        elif isinstance(px, Poisson):
            outputs[MODULE_KEYS.PX_KEY] = _positive(px)
        return outputs

    def loss(
        self,
        tensors: dict[str, Tensor],
        inference_outputs: dict[str, Any],
        generative_outputs: dict[str, Any],
        kl_weight: Tensor | float = 1.0,
        lambda_batch: float = 0.0,
        lambda_perturbation: float = 0.0,
    ) -> LossOutput:
        r"""Return scvi's loss, likelihood and KL never in half precision, and what keeps the latents apart.

        .. math:: L_1 + \lambda_b \, HSIC(z_{intrinsic}, b \mid c, p) + \lambda_p \, HSIC(z_{technical}, p \mid c, b)

        with the posterior means of z, batch b, label c and perturbation p (`invariance.hsic_loss`); logged as
        ``hsic_batch`` and ``hsic_perturbation`` where their weight is not zero, with the number of cells in groups that
        are large enough (``n_hsic_batch``, ``n_hsic_perturbation``).
        """
        with torch.autocast(device_type=inference_outputs["z"].device.type, enabled=False):
            output = super().loss(tensors, inference_outputs, generative_outputs, kl_weight=kl_weight)
            total, logged = output.loss, dict(output.extra_metrics or {})
            for name, weight in (("batch", lambda_batch), ("perturbation", lambda_perturbation)):
                if weight:
                    term, n_cells = self._dependence(name, tensors, inference_outputs[MODULE_KEYS.QZ_KEY].loc)
                    total = total + weight * term.to(total.dtype)
                    logged |= {f"hsic_{name}": term, f"n_hsic_{name}": torch.tensor(float(n_cells))}
        return replace(output, loss=total, extra_metrics=logged)

    def _dependence(self, of: str, tensors: dict[str, Tensor], mean: Tensor) -> tuple[Tensor, int]:
        """Return the HSIC of the batch and the intrinsic latent, or of the perturbation and the technical one."""
        batch, label = tensors[REGISTRY_KEYS.BATCH_KEY], tensors[REGISTRY_KEYS.LABELS_KEY]
        design = tensors.get(CFMVC_REGISTRY_KEYS.PERTURBATION_KEY)
        condition = torch.zeros_like(batch) if design is None else design
        if of == "batch":
            return hsic_loss(mean[:, : self.n_intrinsic], group_codes(batch), group_codes(label, condition))
        return hsic_loss(mean[:, self.n_intrinsic :], group_codes(condition), group_codes(label, batch))
