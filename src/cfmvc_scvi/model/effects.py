"""Public questions about expected effects: their size, their intervals, and how far to rely on them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.model._base import ModelPart
from cfmvc_scvi.model.cells import Group
from cfmvc_scvi.model.interaction_table import interaction_table
from cfmvc_scvi.model.left_out import left_out_effect
from cfmvc_scvi.model.question import asked_design, level_of
from cfmvc_scvi.model.trust import effect_interval, trust_row
from cfmvc_scvi.shift import check_level

__all__ = ["EffectMixin"]


class EffectMixin(ModelPart):
    """`get_doses`, `get_effect`, `get_interaction`, `get_left_out_effect` and `get_trust` of `CFMVC`."""

    def get_effect(
        self, perturbation: str, *, dose: float | None = None, level: float = 0.9, n_cells: int | None = None
    ) -> pd.DataFrame:
        """Return the expected effect of a perturbation on each gene in each context with control cells.

        The interval is of the effect that would be measured on new perturbed cells of the context. Where the context
        was not seen under the perturbation, its width is calibrated on contexts of training that are left out one at a
        time (`shift.Calibration` states what that assumes); where it was, it is the posterior's. Doses and
        combinations that were not seen borrow that calibration, which says nothing of how well they interpolate or
        add up. It is made once per model, when first asked for.

        Parameters
        ----------
        perturbation
            Perturbation or combination.
        dose
            Dose of each part; None is 1.
        level
            Share of genes, in (0, 1), whose measured effect the interval shall hold.
        n_cells
            Perturbed cells that would be measured; None is as many as the context's control cells.

        Returns
        -------
        Columns ``context``, ``gene``, ``control`` and ``delta`` (mean log1p CP10k), ``sd`` (posterior), ``observed``
        (whether the context was seen under the perturbation), ``low`` and ``high`` (interval of delta); sorted by
        context and decreasing |delta|.

        Raises
        ------
        NotTrainedError
            If the representation is not trained.
        UnknownConditionError
            If the perturbation is unknown.
        DataError
            If the dose, level or number of cells cannot be used, or the model has no perturbations.
        """
        self._require("representation")
        check_level(level)
        if n_cells is not None and n_cells < 1:
            raise DataError(f"n_cells is {n_cells}; an effect is measured on at least one cell.")
        frames = []
        for group in self._groups_asked(perturbation, dose):
            answer, base = level_of(self._known, group), level_of(self._known, group.control())
            low, high = effect_interval(self._reference, answer, group.context, level, n_cells)
            columns = {
                "control": base.mean,
                "delta": answer.mean - base.mean,
                "sd": answer.sd,
                "observed": answer.observed,
                "low": low,
                "high": high,
            }
            frame = pd.DataFrame(
                {"context": self._reference.contexts.names[group.context], "gene": self._var_names, **columns}
            )
            frames.append(frame.sort_values("delta", key=abs, ascending=False))
        return pd.concat(frames, ignore_index=True)

    def get_doses(self, perturbation: str) -> NDArray[np.float64]:
        """Return the doses at which training saw a single perturbation by itself, ascending.

        Raises
        ------
        NotTrainedError
            If the representation is not trained.
        UnknownConditionError
            If the perturbation is unknown.
        DataError
            If it is not one perturbation, or the model has no perturbations.
        """
        self._require("representation")
        parts = np.flatnonzero(asked_design(self._known, perturbation, None))
        if len(parts) != 1:
            raise DataError(f"{perturbation!r} names {len(parts)} perturbations; doses are of one.")
        seen = self._reference.designs[self._reference.relatives.alone(int(parts[0])), parts[0]]
        return np.sort(seen.astype(np.float64))

    def get_interaction(self, combination: str, *, dose: float | None = None, level: float = 0.9) -> pd.DataFrame:
        r"""Return what a combination does beyond the sum of its parts, per gene and context with control cells.

        .. math:: I = \Delta_{AB} - \Delta_A - \Delta_B

        of the expected effects in mean log1p CP10k. What the combination does in a context in which it was not seen is
        learnt from the contexts in which it was; of a combination never seen, from other combinations of its parts, as
        far as those predict each other (`shift.fit_interactions`); with neither, it is zero.

        Parameters
        ----------
        combination
            Two or more perturbations, ``'A+B'``.
        dose
            Dose of each part; None is 1.
        level
            Content of the intervals, in (0, 1).

        Returns
        -------
        Columns ``context``, ``gene``, the effect of each part under its name, ``together`` (effect of the combination),
        ``interaction``, ``sd`` (posterior), ``low`` and ``high`` (interval of the interaction), ``class`` (see
        `shift.gene_classes`) and ``basis`` (what the interaction rests on); sorted by context and decreasing
        \|interaction\|.

        Raises
        ------
        NotTrainedError
            If the representation is not trained.
        UnknownConditionError
            If a part is unknown, or was never seen by itself.
        DataError
            If it is no combination, or dose or level cannot be used.
        """
        self._require("representation")
        check_level(level)
        groups = self._groups_asked(combination, dose)
        if np.count_nonzero(groups[0].row) < 2:
            raise DataError(
                f"{combination!r} is no combination at this dose; name two or more perturbations, as 'A+B'."
            )
        for part in np.flatnonzero(groups[0].row):  # refuses parts of which nothing is known
            level_of(
                self._known,
                Group(tuple(np.where(np.arange(len(groups[0].row)) == part, groups[0].row, 0.0)), groups[0].context),
            )
        return interaction_table(self, groups, level)

    def get_left_out_effect(self, perturbation: str, *, dose: float | None = None) -> pd.DataFrame:
        """Predict the effect of a perturbation in each context that saw it from the other contexts that did.

        Nothing is trained again: the latent has seen the context. A small part of a mean rests on it, what the decoder
        expects (`shift.with_decoded`); the rest does not. The prediction is that of `get_effect` for a context not
        seen, and can be compared with what was measured.

        Parameters
        ----------
        perturbation
            Perturbation or combination.
        dose
            Dose of each part; None is 1.

        Returns
        -------
        Columns ``context``, ``gene``, ``delta`` (predicted) and ``measured`` (mean log1p CP10k less that of control
        cells), ``sd`` (of the prediction); no rows where fewer than two contexts saw the perturbation.

        Raises
        ------
        NotTrainedError
            If the representation is not trained.
        UnknownConditionError
            If the perturbation is unknown, or no context saw it at this dose.
        DataError
            If the dose cannot be used, or the model has no perturbations.
        """
        self._require("representation")
        return left_out_effect(self._reference, asked_design(self, perturbation, dose), self._var_names)

    def get_trust(self, perturbation: str, *, dose: float | None = None) -> pd.DataFrame:
        r"""Return how far the expected effect of a perturbation can be relied on, in each context with control cells.

        .. math:: trust = 1 / (1 + e^2), e^2 = c_k \sum_g (sd_g^2 + \tau^2 \Delta_g^2) / \sum_g \Delta_g^2

        the expected share of the squared effect that is explained; e is the expected error of the effect, relative to
        its size and without sampling noise (what `benchmark.relative_error` measures). Where the context k was not seen
        under the perturbation, tau^2 is the variance of response strengths over contexts of training that are left
        out one at a time, and c_k their squared error over the variance predicted for them, drawn towards that of the
        context itself under other perturbations. Where it was seen, tau^2 is 0 and c_k 1.

        Parameters
        ----------
        perturbation
            Perturbation or combination.
        dose
            Dose of each part; None is 1.

        Returns
        -------
        One row per context: ``context``; ``trust`` in [0, 1]; ``expected_error``, e; ``word``, ``high`` (trust at least
        0.75), ``medium`` (at least 0.5) or ``low``; ``observed``; ``n_contexts`` that saw the perturbation (the fewest,
        over the parts of a combination not seen); ``n_cells`` that the effect rests on: the context's own where
        observed, else those of all contexts (likewise the fewest); ``distance`` of the control profile to the nearest
        context that saw it, in units of the median distance of contexts; ``extrapolated``, a dose beyond those seen;
        ``composed`` of the effects of its parts; ``calibrated``, whether contexts left out of training calibrated a
        prediction of this kind: a seen condition in a context in which it was not (false where it was: a measurement
        needs none).

        Raises
        ------
        NotTrainedError
            If the representation is not trained.
        UnknownConditionError
            If the perturbation is unknown.
        DataError
            If the dose cannot be used, or the model has no perturbations.
        """
        self._require("representation")
        return pd.DataFrame([trust_row(self._known, group) for group in self._groups_asked(perturbation, dose)])

    def _groups_asked(self, perturbation: str, dose: float | None) -> list[Group]:
        """Return a condition in each context with control cells."""
        design = tuple(map(float, asked_design(self._known, perturbation, dose)))
        return [Group(design, int(context)) for context in self._reference.control_contexts]
