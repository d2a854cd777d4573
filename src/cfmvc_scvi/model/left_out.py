"""Effects that were measured, predicted as if they had not been."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cfmvc_scvi.errors import UnknownConditionError
from cfmvc_scvi.model.reference import Reference

__all__ = ["left_out_effect"]


def left_out_effect(reference: Reference, design: NDArray[np.float32], genes: Any) -> pd.DataFrame:
    """Predict a condition in each context that saw it from the others that did; columns as of `get_left_out_effect`.

    Raises
    ------
    UnknownConditionError
        If no context saw the condition.
    """
    code = reference.condition(design)
    if code < 0:
        raise UnknownConditionError("no context saw this condition, so there is nothing to leave out.")
    perturbed = reference.bulk_over_contexts(code)
    frames = []
    for one in reference.goals.left_out(code):
        context = int(reference.control_contexts[one.context])
        measured = perturbed.log_mean[one.context] - reference.control_level(context).mean
        columns = {"delta": measured - one.error, "measured": measured, "sd": one.sd}
        frames.append(pd.DataFrame({"context": reference.contexts.names[context], "gene": genes, **columns}))
    names = ["context", "gene", "delta", "measured", "sd"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=names)
