"""The trained networks as ONNX Runtime runs them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from cfmvc_scvi._optional import require_extra
from cfmvc_scvi.config import SolverConfig
from cfmvc_scvi.errors import NonFiniteError
from cfmvc_scvi.model.networks import Inputs, Solved
from cfmvc_scvi.runtime.card import Card

__all__ = ["DECODER_FILE", "ENCODER_FILE", "OnnxNetworks", "field_file", "onnx_runtime"]

Array = NDArray[np.float64]

ENCODER_FILE = "encoder.onnx"
DECODER_FILE = "decoder.onnx"
_EVALUATIONS = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}  # of the velocity, in a step


def field_file(method: str) -> str:
    """Return the name of the file with the field and the solver's loop around it."""
    return f"field_{method}.onnx"


def onnx_runtime(extra: str = "runtime") -> Any:
    """Return ONNX Runtime, imported so that it reports nothing to its makers; MissingExtraError if not installed.

    Its wheels send telemetry unless this variable of the environment is set before the import; one that is set stays.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return require_extra("onnxruntime", extra)


class OnnxNetworks:
    """`Networks` of an exported model.

    Parameters
    ----------
    card
        Of the model.
    graphs
        Contents of the ONNX files, by name.
    n_threads
        Threads that one network uses.
    """

    def __init__(self, card: Card, graphs: Mapping[str, bytes], n_threads: int = 1) -> None:
        self.n_intrinsic, self.n_technical = card.n_intrinsic, card.n_technical
        self.location, self.scale = np.array(card.location), card.scale
        self._encoder = _Graph(graphs[ENCODER_FILE], n_threads)
        self._decoder = _Graph(graphs[DECODER_FILE], n_threads)
        self._fields = {method: _Graph(graphs[field_file(method)], n_threads) for method in card.solvers}

    def posterior(self, counts: sp.csr_matrix, inputs: Inputs) -> tuple[Array, Array]:
        """See `Networks.posterior`."""
        mean, sd = self._encoder({**inputs, "counts": counts.toarray()})
        return mean, sd

    def technical(self, counts: sp.csr_matrix, inputs: Inputs) -> Array:
        """See `Networks.technical`."""
        return self.posterior(counts, inputs)[0][:, self.n_intrinsic :]

    def fractions(self, z: Array, inputs: Inputs) -> Array:
        """See `Networks.fractions`."""
        return self._decoder({**inputs, "z": z})[0]

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
        values = {"state": state, "design": design, "context": context, "guidance_scale": np.array(guidance_scale)}
        t_start, t_end = (1.0, 0.0) if backwards else (0.0, 1.0)
        times = {"t_start": np.array(t_start), "t_end": np.array(t_end), "n_steps": np.array(solver.n_steps)}
        (end,) = self._fields[solver.method](values | times)
        wrong = np.flatnonzero(~np.isfinite(end).all(axis=1))
        if len(wrong):
            raise NonFiniteError(
                f"the ODE state is not finite after {solver.n_steps} steps ({solver.method}): {len(wrong)} of "
                f"{len(end)} cells, first row {wrong[0]}; check the counts, or take more steps"
            )
        return Solved(end, solver.n_steps * _EVALUATIONS[solver.method])


class _Graph:
    """One ONNX graph: arrays by name in, a list of arrays out; numbers in double precision, codes as integers."""

    def __init__(self, content: bytes, n_threads: int) -> None:
        runtime = onnx_runtime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = n_threads, 1
        # memory that grows with the largest batch and stays would not be flat in a server
        options.enable_cpu_mem_arena = False
        self._session: Any = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.names: Sequence[str] = [entry.name for entry in self._session.get_inputs()]

    def __call__(self, values: Mapping[str, NDArray]) -> list[Array]:
        feed = {name: np.asarray(values[name]) for name in self.names}
        wide = {name: value.astype(np.float64 if value.dtype.kind == "f" else np.int64) for name, value in feed.items()}
        return self._session.run(None, wide)
