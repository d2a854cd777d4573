"""Decoded shares of the genes of cells, computed when they are asked for, once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from cfmvc_scvi.model.cells import CellBatch
from cfmvc_scvi.model.networks import Inputs, Networks

__all__ = ["Shares", "decoder_of"]

Array = NDArray[np.float64]


class Shares:
    """Expected shares of the genes in the counts of cells, `(cells, genes)`, as the cells are and as they become.

    Parameters
    ----------
    before, after
        Compute them.
    """

    def __init__(self, before: Callable[[], Array], after: Callable[[], Array]) -> None:
        self._compute = before, after

    @classmethod
    def of(cls, networks: Networks, cells: CellBatch, observed: Array, moved: Array) -> Shares:
        """Decode the latents `(cells, dims)` of cells, observed and counterfactual."""
        before = decoder_of(networks, observed, cells.inputs)
        return cls(before, decoder_of(networks, moved, cells.with_wanted_batch()))

    @cached_property
    def before(self) -> Array:
        """Shares as the cells are."""
        return self._compute[0]()

    @cached_property
    def after(self) -> Array:
        """Shares as they become."""
        return self._compute[1]()


def decoder_of(
    networks: Networks, z: Array, inputs: Inputs, rows: NDArray[np.int64] | None = None
) -> Callable[[], Array]:
    """Return what decodes latents `(cells, dims)` when called first; of these rows, where others are zero."""

    @cache
    def decoded() -> Array:
        if rows is None or len(rows) == len(z):
            return networks.fractions(z, inputs)
        some = networks.fractions(z[rows], {key: value[rows] for key, value in inputs.items()})
        result = np.zeros((len(z), some.shape[1]))
        result[rows] = some
        return result

    return decoded
