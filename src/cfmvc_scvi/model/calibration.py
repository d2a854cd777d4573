"""How far off the groups of the training data are when each is left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cfmvc_scvi.config import CalibrationConfig, EffectConfig
from cfmvc_scvi.shift import Calibration, LeftOut, PseudoBulk, calibrate, leave_one_out, pairs_to_leave_out

__all__ = ["left_out_calibration"]

Array = NDArray[np.float64]
BulkOf = Callable[[int], PseudoBulk]


def left_out_calibration(
    groups: NDArray[np.int64],
    contexts: NDArray[np.int64],
    expected: BulkOf,
    perturbed: BulkOf,
    decoded: Callable[[int], Array | None],
    effect: EffectConfig,
) -> Calibration:
    """Leave out groups one after the other, on some genes, and calibrate on the errors.

    Parameters
    ----------
    groups
        Condition and context of each group seen, (groups, 2).
    contexts
        Codes of the contexts with control cells, ascending.
    expected, perturbed
        From the code of a condition to the pseudo-bulk that its effect starts from, and to its own, over `contexts`.
    decoded
        From the code of a condition to what the decoder expects, over `contexts`; of `shift.leave_one_out`.
    effect
        Options of the empirical-Bayes effect.
    """
    config = CalibrationConfig()
    treated = groups[(groups[:, 0] > 0) & np.isin(groups[:, 1], contexts)]
    by_mean = np.argsort(perturbed(0).log_mean.mean(axis=0), kind="stable")
    n_genes = min(len(by_mean), config.n_genes)
    genes = np.sort(by_mean[np.linspace(0, len(by_mean) - 1, n_genes).astype(int)])
    chosen = treated[pairs_to_leave_out(treated[:, 0], treated[:, 1], n_genes, config)]
    left_out: list[LeftOut] = []
    for code in np.unique(chosen[:, 0]).tolist():
        rows = np.searchsorted(contexts, chosen[chosen[:, 0] == code, 1])
        start, end = expected(code).take_genes(genes), perturbed(code).take_genes(genes)
        level = decoded(code)
        left_out += leave_one_out(start, end, effect, rows, None if level is None else level[:, genes])
    return calibrate([replace(one, context=int(contexts[one.context])) for one in left_out], config)
