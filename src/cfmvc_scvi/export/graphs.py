"""The networks of a module as ONNX graphs, in double precision, for any number of cells."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop
from torch.export import Dim

from cfmvc_scvi._keys import CFMVC_REGISTRY_KEYS
from cfmvc_scvi._optional import require_extra
from cfmvc_scvi.flow import Method, ode_step
from cfmvc_scvi.module import CFMVCModule
from cfmvc_scvi.nn import VelocityField

__all__ = ["decoder_graph", "encoder_graph", "field_graph"]

_EXAMPLE_CELLS = 3  # torch.export takes 0 and 1 for constants


class _Encoder(nn.Module):
    """Counts and batch -> mean and standard deviation of the posterior."""

    def __init__(self, module: CFMVCModule) -> None:
        super().__init__()
        self.module = module
        module.z_encoder.var_activation = _softplus

    def forward(self, counts: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.log1p(counts) if self.module.log_variational else counts
        return self.module.z_encoder.moments(x, batch)


def _softplus(x: Tensor) -> Tensor:
    """Return log(1 + e^x), of which ONNX Runtime has no version in double precision."""
    return x.clamp(min=0) + torch.log(1 + torch.exp(-x.abs()))


class _Decoder(nn.Module):
    """Latent, batch and covariates -> expected share of each gene."""

    def __init__(self, module: CFMVCModule, keys: list[str]) -> None:
        super().__init__()
        self.module, self.keys = module, keys

    def forward(self, z: Tensor, *inputs: Tensor) -> Tensor:
        return self.module.decode_fractions(z, dict(zip(self.keys, inputs, strict=True)))


class _Solver(nn.Module):
    """State under a condition at one path time -> state at another, by a loop that runs inside the graph."""

    def __init__(self, field: VelocityField, method: Method) -> None:
        super().__init__()
        self.field, self.method = field, method

    def forward(
        self,
        state: Tensor,
        design: Tensor,
        context: Tensor,
        t_start: Tensor,
        t_end: Tensor,
        n_steps: Tensor,
        guidance_scale: Tensor,
    ) -> Tensor:
        velocity = self.field.at(design, context, cast("float", guidance_scale))
        dt = (t_end - t_start) / n_steps

        def unfinished(step: Tensor, z: Tensor) -> Tensor:
            return step < n_steps

        def advance(step: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
            return step + 1, ode_step(velocity, z, t_start + step * dt, dt, method=self.method)

        return while_loop(unfinished, advance, (torch.zeros((), dtype=torch.int64), state))[1]


def encoder_graph(module: CFMVCModule) -> bytes:
    """Return the encoder: ``counts`` (cells, genes) and ``batch`` (cells, 1) -> ``mean`` and ``sd`` of the latent.

    Parameters
    ----------
    module
        In double precision, on the CPU, in eval mode, and to be thrown away: its softplus is replaced.
    """
    keys = CFMVC_REGISTRY_KEYS
    n_genes = module.z_encoder.encoder.fc_layers[0][0].in_features
    inputs = {"counts": torch.ones(_EXAMPLE_CELLS, n_genes).double(), keys.BATCH_KEY: _codes(1)}
    return _exported(_Encoder(module), inputs, ["mean", "sd"])


def decoder_graph(module: CFMVCModule, n_categories: int, n_continuous: int) -> bytes:
    """Return the decoder: latent ``z``, batch, labels and covariates by registry key -> ``shares`` (cells, genes).

    Parameters
    ----------
    module
        As of `encoder_graph`.
    n_categories, n_continuous
        Numbers of covariates.
    """
    keys = CFMVC_REGISTRY_KEYS
    inputs = {keys.BATCH_KEY: _codes(1), keys.LABELS_KEY: _codes(1)}
    if n_categories:
        inputs[keys.CAT_COVS_KEY] = _codes(n_categories)
    if n_continuous:
        inputs[keys.CONT_COVS_KEY] = torch.ones(_EXAMPLE_CELLS, n_continuous).double()
    z = torch.ones(_EXAMPLE_CELLS, module.n_latent).double()
    return _exported(_Decoder(module, list(inputs)), {"z": z, **inputs}, ["shares"])


def field_graph(module: CFMVCModule, method: Method) -> bytes:
    """Return the flow with the solver around it; the number of steps is an input.

    ``state`` (cells, dims), ``design`` (cells, perturbations), ``context`` (cells, features) and the scalars
    ``t_start``, ``t_end``, ``n_steps`` and ``guidance_scale`` -> ``end`` (cells, dims).

    Parameters
    ----------
    module
        As of `encoder_graph`.
    method
        Of the solver.
    """
    field = module.velocity
    widths = {
        "state": field.n_latent,
        "design": field.perturbation_encoder.n_perturbations,
        "context": field.context_encoder.n_context_features,
    }
    inputs = {name: torch.ones(_EXAMPLE_CELLS, width).double() for name, width in widths.items()}
    inputs |= {"t_start": torch.zeros(()).double(), "t_end": torch.ones(()).double(), "n_steps": torch.tensor(5)}
    inputs["guidance_scale"] = torch.ones(()).double()
    return _exported(_Solver(field, method), inputs, ["end"])


def _codes(n_columns: int) -> Tensor:
    return torch.zeros(_EXAMPLE_CELLS, n_columns, dtype=torch.int64)


def _exported(network: nn.Module, inputs: Mapping[str, Tensor], outputs: list[str]) -> bytes:
    require_extra("onnxscript", "onnx")
    cells = Dim("cells", min=0)
    shapes = tuple({0: cells} if value.ndim else None for value in inputs.values())
    arguments: Any = shapes if not isinstance(network, _Decoder) else (shapes[0], shapes[1:])
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            network.eval(),
            tuple(inputs.values()),
            dynamo=True,
            verbose=False,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=arguments,
        )
    assert program is not None  # which it is for dynamo=False alone
    proto = program.model_proto
    _forget_sources(proto.graph)
    for function in proto.functions:
        _forget_sources(function)
    return proto.SerializeToString()


def _forget_sources(graph: Any) -> None:
    """Remove what torch notes of the source files that each node came from: paths of this machine."""
    graph.ClearField("doc_string")
    graph.ClearField("metadata_props")
    for node in graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _forget_sources(attribute.g)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what torch says to its own developers while it exports."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
