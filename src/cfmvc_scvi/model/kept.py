"""What predictions leave behind for the next: networks in double precision, and what depends on weights alone."""

from __future__ import annotations

from typing import Any

from cfmvc_scvi._bounded import BoundedDict
from cfmvc_scvi.config import SolverConfig
from cfmvc_scvi.model.engine import Engine
from cfmvc_scvi.model.plan import Observation
from cfmvc_scvi.model.reference import Reference
from cfmvc_scvi.model.torch_networks import TorchNetworks
from cfmvc_scvi.module import CFMVCModule

__all__ = ["Kept"]

_ENGINES = 4
_MOST_BYTES = 2**27  # of observations


class Kept:
    """Engines and observations that share what earlier ones of the same arguments found.

    Valid as long as `fits`; what is kept changes no prediction, only how long it takes.

    Parameters
    ----------
    module, reference
        Of the model.
    """

    def __init__(self, module: CFMVCModule, reference: Reference) -> None:
        self.networks, self.reference = TorchNetworks(module), reference
        self._single: TorchNetworks | None = None
        self._engines: BoundedDict[Any, Engine] = BoundedDict(_ENGINES)
        self._observations: dict[Any, Observation] = {}

    def fits(self, module: CFMVCModule, reference: Reference) -> bool:
        """Return whether the model is still the one that this belongs to."""
        return reference is self.reference and self.networks.are_of(module)

    def engine(
        self, source: Any, solver: SolverConfig, guidance_scale: float, strength: float, *, single: bool = False
    ) -> Engine:
        """Return an engine that has not counted its ODEs yet; `single` as of `TorchNetworks`."""
        options, networks = (source, solver, guidance_scale, strength), self.networks
        if single:
            networks = self._single = self._single or TorchNetworks(self.networks.module, single=True)
        key = networks, *options
        engine = Engine(networks, self.reference, *options)
        if key in self._engines:
            engine.share(self._engines[key])
        self._engines[key] = engine
        return engine

    def observation(self, engine: Engine, heterogeneity: float, seed: int, draw: int = 0) -> Observation:
        """Return an observation; of two with the same arguments the second has the plans of the first."""
        options = engine.source, engine.solver, engine.guidance_scale, engine.strength
        key = engine.networks, *options, heterogeneity, seed, draw
        while self._observations and sum(each.n_bytes for each in self._observations.values()) > _MOST_BYTES:
            del self._observations[next(iter(self._observations))]
        observation = Observation(engine, heterogeneity, seed, draw)
        if (before := self._observations.pop(key, None)) is not None:
            observation.share(before)
        self._observations[key] = observation
        return observation
