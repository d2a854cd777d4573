"""The trained networks as torch runs them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from cfmvc_scvi._keys import CFMVC_REGISTRY_KEYS
from cfmvc_scvi.config import SolverConfig
from cfmvc_scvi.flow import integrate
from cfmvc_scvi.model.networks import Inputs, Solved
from cfmvc_scvi.module import CFMVCModule

__all__ = ["TorchNetworks"]

Array = NDArray[np.float64]


class TorchNetworks:
    """`Networks` of a module, which is copied, in eval mode, on its own device.

    Parameters
    ----------
    module
        The trained module, with a flow.
    single
        In single precision, which is enough where no count depends on the latents.
    """

    def __init__(self, module: CFMVCModule, *, single: bool = False) -> None:
        self.module = copy.deepcopy(module).eval()
        if single:
            self.module.float()
        elif module.latent_location.device.type != "mps":  # which has no double precision
            self.module.double()
        self.n_intrinsic, self.n_technical = module.n_intrinsic, module.n_technical
        self.location = _array(self.module.latent_location)
        self.scale = float(self.module.latent_scale)

    def are_of(self, module: CFMVCModule) -> bool:
        """Return whether the weights of `module` are still those that were copied."""
        copied, current = self.module.state_dict(), module.state_dict()
        return copied.keys() == current.keys() and all(
            copied[name].device == value.device and torch.equal(copied[name], value.to(copied[name].dtype))
            for name, value in current.items()
        )

    @torch.inference_mode()
    def posterior(self, counts: sp.csr_matrix, inputs: Inputs) -> tuple[Array, Array]:
        """See `Networks.posterior`."""
        values = counts.astype(np.float64 if self.module.latent_location.dtype == torch.float64 else np.float32)
        depth = np.asarray(values.sum(axis=1))
        if self.module.log_variational:
            np.log1p(values.data, out=values.data)
        batch = self._tensor(inputs[CFMVC_REGISTRY_KEYS.BATCH_KEY])
        moments = self.module.z_encoder.moments(self._tensor(values.toarray()), batch, self._tensor(depth))
        mean, sd = map(_array, moments)
        return mean, sd

    @torch.inference_mode()
    def technical(self, counts: sp.csr_matrix, inputs: Inputs) -> Array:
        """See `Networks.technical`."""
        if not self.n_technical:
            return np.empty((counts.shape[0], 0))
        tensors = self._tensors(inputs) | {CFMVC_REGISTRY_KEYS.X_KEY: self._tensor(counts.toarray())}
        return _array(self.module.technical_posterior_mean(tensors))

    @torch.inference_mode()
    def fractions(self, z: Array, inputs: Inputs) -> Array:
        """See `Networks.fractions`."""
        return _array(self.module.decode_fractions(self._tensor(z), self._tensors(inputs)))

    @torch.inference_mode()
    def solve(
        self,
        state: Array,
        design: Array,
        context: Array,
        *,
        backwards: bool,
        solver: SolverConfig,
        guidance_scale: float,
    ) -> Solved:
        """See `Networks.solve`."""
        velocity = self.module.velocity.at(self._tensor(design), self._tensor(context), guidance_scale)
        t_start, t_end = (1.0, 0.0) if backwards else (0.0, 1.0)
        options: dict[str, Any] = {"method": solver.method, "n_steps": solver.n_steps}
        solution = integrate(velocity, self._tensor(state), t_start=t_start, t_end=t_end, **options)
        return Solved(_array(solution.z), solution.n_evaluations)

    def _tensors(self, inputs: Inputs) -> dict[str, Tensor]:
        return {key: self._tensor(values) for key, values in inputs.items()}

    def _tensor(self, values: NDArray) -> Tensor:
        """Return values on the device of the module, what is not a code in its precision."""
        like = self.module.latent_location
        tensor = torch.as_tensor(values, device=like.device if values.dtype.kind != "f" else None)
        return tensor.to(like) if tensor.is_floating_point() else tensor


def _array(tensor: Tensor) -> Array:
    return tensor.detach().cpu().double().numpy()
