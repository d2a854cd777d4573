"""What combinations do beyond the sum of their parts, learnt from the combinations that training saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cfmvc_scvi.shift import InteractionFit, fit_interactions, interpolate_dose

if TYPE_CHECKING:
    from cfmvc_scvi.model.reference import Reference

__all__ = ["Design", "Interactions", "seen_interaction", "single"]

Array = NDArray[np.float64]
Design = NDArray[np.float32]


@dataclass
class Interactions:
    """Interactions of conditions, of which each context has its own.

    Attributes
    ----------
    designs
        `(conditions, perturbations)` of the conditions seen; row 0 is control.
    observed
        Returns the interaction `(contexts, columns)` of a combination that was seen, and None where a part of it is not
        known by itself.
    """

    designs: Design
    observed: Callable[[int], Array | None]
    _found: dict[int, Array] | None = field(default=None, repr=False)
    _fit: InteractionFit | None = field(default=None, repr=False)

    def of(self, design: Design) -> tuple[Array, Array] | None:
        """Return interaction and error `(contexts, columns)` of an unseen condition; None where nothing is known of it.

        A combination seen at other doses: interpolated over the mean dose of its parts, without an error. Else
        `shift.fit_interactions` of all combinations.
        """
        parts = design > 0
        if parts.sum() < 2:
            return None
        known = self._known()
        if not known:
            return None
        shape = next(iter(known.values())).shape
        same = [code for code in known if ((self.designs[code] > 0) == parts).all()]
        if same:
            return self._at_dose(same, float(design[parts].mean())).reshape(shape), np.zeros(shape)
        largest = self.designs.max(axis=0)
        if self._fit is None:
            values = np.stack([value.ravel() for value in known.values()])
            self._fit = fit_interactions(self.designs[list(known)], values, largest)
        return self._fit.predict(design, largest).reshape(shape), self._fit.error.reshape(shape)

    def _known(self) -> dict[int, Array]:
        """Return the interactions of the combinations that were seen, whose parts are known; computed once."""
        if self._found is None:
            combinations = np.flatnonzero((self.designs > 0).sum(axis=1) > 1)
            values = {int(code): self.observed(int(code)) for code in combinations}
            self._found = {code: value for code, value in values.items() if value is not None}
        return self._found

    def _at_dose(self, codes: list[int], dose: float) -> Array:
        doses = np.array([self.designs[code][self.designs[code] > 0].mean() for code in codes], dtype=float)
        values = np.stack([self._known()[code].ravel() for code in codes])
        distinct, place = np.unique(doses, return_inverse=True)
        means = np.stack([values[place == number].mean(axis=0) for number in range(len(distinct))])
        return interpolate_dose(distinct, means, dose)[0]


def seen_interaction(reference: Reference, code: int) -> Array | None:
    """Return the interaction of a seen combination `(contexts, genes)`; None if a part is not known by itself."""
    design = reference.designs[code]
    parts = np.flatnonzero(design)
    if not all(len(reference.relatives.alone(int(part))) for part in parts):
        return None
    rows = []
    for context in reference.control_contexts.tolist():
        control = reference.control_level(context).mean
        singles = [single(design, int(part)) for part in parts]
        deltas = [reference.level(alone, context).mean - control for alone in singles]
        rows.append(reference.level(design, context).mean - control - sum(deltas))
    return np.stack(rows)


def single(design: Design, part: int) -> Design:
    """Return one part of a combination at its dose, by itself."""
    return np.where(np.arange(len(design)) == part, design, 0).astype(np.float32)
