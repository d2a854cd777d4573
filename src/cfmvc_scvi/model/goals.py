"""Expected levels of the conditions seen, in all contexts with control cells, and how far off such levels are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cfmvc_scvi.config import CalibrationConfig, EffectConfig
from cfmvc_scvi.model.decoded import DecodedShifts
from cfmvc_scvi.shift import (
    Calibration,
    EffectGoal,
    LeftOut,
    PseudoBulk,
    averaged_goal,
    calibrate,
    context_weights,
    effect_goal,
    leave_one_out,
    pairs_to_leave_out,
    with_decoded,
)

__all__ = ["Goals"]

Array = NDArray[np.float64]
BulkOf = Callable[[int], PseudoBulk]


class Goals:
    """Empirical-Bayes levels of conditions, where not seen together with what the decoder makes of their shift.

    Rows are the contexts with control cells, in the order of their codes.

    Parameters
    ----------
    designs
        Of the conditions, (conditions, perturbations).
    groups
        Condition and context of each group seen, (groups, 2).
    contexts
        Codes of the contexts with control cells, ascending.
    expected, perturbed
        From the code of a condition to the pseudo-bulk that its effect starts from, and to its own, over `contexts`.
    config
        Options of the effect.
    decoded
        None where nothing was decoded.
    known
        Goals that are known already, by condition; what is estimated is added.
    """

    def __init__(
        self,
        designs: NDArray[np.float32],
        groups: NDArray[np.int64],
        contexts: NDArray[np.int64],
        expected: BulkOf,
        perturbed: BulkOf,
        config: EffectConfig,
        decoded: DecodedShifts | None,
        known: dict[int, EffectGoal],
    ) -> None:
        self._groups, self._contexts, self._config, self._decoded = groups, contexts, config, decoded
        self._designs, self._expected, self._perturbed = designs, expected, perturbed
        self._goals = known
        self._weights: dict[int, Array] = {}

    def of(self, condition: int) -> EffectGoal:
        """Return the goal of a condition; estimated once.

        A combination is estimated around its parts and around control, and the two are averaged.
        """
        if condition not in self._goals:
            expected, perturbed, control = self._expected(condition), self._perturbed(condition), self._perturbed(0)
            goal = effect_goal(expected, perturbed, self._config)
            if np.count_nonzero(self._designs[condition]) > 1 and (expected.log_mean != control.log_mean).any():
                goal = averaged_goal(goal, effect_goal(control, perturbed, self._config))
            level = self._decoded_level(condition)
            self._goals[condition] = with_decoded(goal, level, self._config.decoded_share)
        return self._goals[condition]

    def weights(self, condition: int) -> Array:
        """Return the weights of contexts in the goal of a condition, (contexts, contexts); without estimating it."""
        if condition in self._goals:
            return self._goals[condition].weights
        if condition not in self._weights:
            bulks = self._expected(condition), self._perturbed(condition)
            self._weights[condition] = context_weights(*bulks, self._config)
        return self._weights[condition]

    def left_out(self, condition: int) -> list[LeftOut]:
        """Predict each context that saw a condition from the others that did."""
        bulks = self._expected(condition), self._perturbed(condition)
        return leave_one_out(*bulks, self._config, decoded=self._decoded_level(condition))

    @cached_property
    def calibration(self) -> Calibration:
        """How far off contexts are that are left out of training; estimated once, on some genes and pairs."""
        config = CalibrationConfig()
        treated = self._groups[(self._groups[:, 0] > 0) & np.isin(self._groups[:, 1], self._contexts)]
        by_mean = np.argsort(self._perturbed(0).log_mean.mean(axis=0), kind="stable")
        n_genes = min(len(by_mean), config.n_genes)
        genes = np.sort(by_mean[np.linspace(0, len(by_mean) - 1, n_genes).astype(int)])
        chosen = treated[pairs_to_leave_out(treated[:, 0], treated[:, 1], n_genes, config)]
        left_out: list[LeftOut] = []
        for code in np.unique(chosen[:, 0]).tolist():
            rows = np.searchsorted(self._contexts, chosen[chosen[:, 0] == code, 1])
            start, end = self._expected(code).take_genes(genes), self._perturbed(code).take_genes(genes)
            level = self._decoded_level(code)
            left_out += leave_one_out(start, end, self._config, rows, None if level is None else level[:, genes])
        return calibrate([replace(one, context=int(self._contexts[one.context])) for one in left_out], config)

    def _decoded_level(self, condition: int) -> Array | None:
        """Return the level that the decoder expects (contexts, genes), NaN in rows of which it tells nothing."""
        if self._decoded is None:
            return None
        control = self._perturbed(0).log_mean
        level = np.full_like(control, np.nan)
        for row, context in enumerate(self._contexts.tolist()):
            change = self._decoded.of(condition, context)
            if change is not None:
                level[row] = control[row] + change
        return level
