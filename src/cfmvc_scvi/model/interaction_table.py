"""The table of what combinations do beyond the sum of their parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from cfmvc_scvi.model.cells import Group
from cfmvc_scvi.model.interactions import Design, single
from cfmvc_scvi.model.reference import Reference
from cfmvc_scvi.shift import gene_classes

__all__ = ["interaction_table"]


def interaction_table(model: Any, groups: list[Group], level: float) -> pd.DataFrame:
    """Return the table of `CFMVC.get_interaction`."""
    reference: Reference = model._reference
    frames = []
    for group in groups:
        together, control = (reference.level(row, group.context) for row in (group.row, group.control().row))
        singles = [single(group.row, int(part)) for part in np.flatnonzero(group.row)]
        levels = [reference.level(alone, group.context) for alone in singles]
        parts = np.stack([each.mean - control.mean for each in levels])
        delta = together.mean - control.mean
        sd = np.sqrt(sum(each.sd**2 for each in (together, *levels, control)))
        half = norm.ppf(0.5 + level / 2) * sd
        interaction = delta - parts.sum(axis=0)
        columns = {model.vocabulary.names(alone)[0]: part for alone, part in zip(singles, parts, strict=True)}
        columns |= {"together": delta, "interaction": interaction, "sd": sd}
        columns |= {"low": interaction - half, "high": interaction + half}
        columns["class"] = gene_classes(parts, delta, sd, level)
        columns["basis"] = _basis(reference, group.row, together.observed)
        names = {"context": reference.contexts.names[group.context], "gene": model._var_names}
        frame = pd.DataFrame({**names, **columns})
        frames.append(frame.sort_values("interaction", key=abs, ascending=False, kind="stable"))
    return pd.concat(frames, ignore_index=True)


def _basis(reference: Reference, design: Design, observed: bool) -> str:
    if observed:
        return "seen here"
    if reference.condition(design) > 0:
        return "seen in other contexts"
    known = reference.interactions.of(design)
    return "none: additive" if known is None or not known[0].any() else "other combinations or doses"
