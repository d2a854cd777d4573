"""What the decoder makes of the latent shift that a condition is expected to make in a context."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cfmvc_scvi.model.networks import Networks
from cfmvc_scvi.model.panel import Panel

__all__ = ["DecodedShifts", "borrowed_pairs", "decode_shifts"]

Array = NDArray[np.float64]

_CELLS = 100  # control cells of a context that are moved


@dataclass(frozen=True)
class DecodedShifts:
    """Change of mean log1p CP10k of the control cells of a context, moved by what other contexts lead to expect.

    Parameters
    ----------
    pairs
        Codes of condition and context, (pairs, 2).
    change
        In the decoded shares of genes, (pairs, genes).
    """

    pairs: NDArray[np.int64]
    change: NDArray[np.float32]

    @cached_property
    def _rows(self) -> dict[tuple[int, int], int]:
        return {(int(condition), int(context)): row for row, (condition, context) in enumerate(self.pairs)}

    def of(self, condition: int, context: int) -> NDArray[np.float32] | None:
        """Return the change of a pair, (genes,); None where no other context tells of it."""
        row = self._rows.get((condition, context))
        return None if row is None else self.change[row]


def borrowed_pairs(groups: NDArray[np.int64], contexts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the pairs (pairs, 2) of a condition and one of `contexts` such that another of them saw the condition.

    Parameters
    ----------
    groups
        Condition and context of each group seen, (groups, 2); condition 0 is control.
    contexts
        Codes of the contexts with control cells.
    """
    seen = groups[(groups[:, 0] > 0) & np.isin(groups[:, 1], contexts)]
    pairs = [
        (code, context)
        for code in np.unique(seen[:, 0])
        for context in contexts
        if np.any(seen[seen[:, 0] == code, 1] != context)
    ]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def decode_shifts(
    networks: Networks, panel: Panel, pairs: NDArray[np.int64], frame: Callable[[int], NDArray[np.floating]]
) -> DecodedShifts:
    """Move the control cells of contexts by the frames of conditions, and decode them before and after.

    Parameters
    ----------
    networks
        Encoder and decoder.
    panel
        Has control cells of each context; the first 100 of a context are moved.
    pairs
        Codes of condition and context, (pairs, 2).
    frame
        From a condition to its latent shift in all contexts, (contexts, dims).
    """
    change = np.empty((len(pairs), panel.counts.shape[1]), dtype=np.float32)
    frames = {int(code): frame(int(code)) for code in np.unique(pairs[:, 0])}
    for context in np.unique(pairs[:, 1]):
        cells = panel.take(panel.rows(0, int(context))[:_CELLS])
        z, _ = networks.posterior(cells.counts, cells.tensors)
        before = _log_mean(networks, z, cells)
        for row in np.flatnonzero(pairs[:, 1] == context):
            moved = z.copy()
            moved[:, : networks.n_intrinsic] += frames[int(pairs[row, 0])][context]
            change[row] = _log_mean(networks, moved, cells) - before
    return DecodedShifts(pairs, change)


def _log_mean(networks: Networks, z: Array, cells: Panel) -> Array:
    """Return the mean log1p CP10k of decoded shares, (genes,)."""
    mean: Array = np.log1p(1e4 * networks.fractions(z, cells.tensors)).mean(axis=0)
    return mean
