"""Cells on their way to their counterfactuals."""

from __future__ import annotations

__all__ = ["counterfactual_trajectory"]

from collections.abc import Sequence
from typing import Any

import anndata as ad
import numpy as np
from anndata import AnnData

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.model import CFMVC

_LONGEST = 1.5


def counterfactual_trajectory(
    adata: AnnData,
    model: CFMVC,
    perturbation: str,
    *,
    times: int | Sequence[float] = 6,
    seed: int | None = 0,
    **kwargs: Any,
) -> AnnData:
    """Return the cells along the path from what they are to their counterfactuals, decoded.

    The path is the straight one that the flow was trained on (`flow.straight_path`, in its moving frame): at path time
    t a cell has gone the share t of its way, in the latent and in the mean log1p CP10k of its context, as with
    ``strength=t``. The noise of a cell's counts is the same at all times, so that each gene changes monotonically. Path
    time is a share of an effect, not hours; for hours see `tl.dose_response`.

    Parameters
    ----------
    adata
        Cells with the registered columns.
    model
        A trained model.
    perturbation
        Perturbation, combination (``'A+B'``) or the control category.
    times
        Path times in [0, 1.5], ascending; or how many, evenly from 0 to 1.
    seed
        Seed of the noise of counts, the same at all times.
    **kwargs
        Passed to `CFMVC.predict_counterfactual`: ``indices``, ``output``, ``dose``, ``heterogeneity`` and so on.

    Returns
    -------
    All cells at the first time, then at the next: those of `CFMVC.predict_counterfactual`, named
    ``<cell>-t<number of the time>``, with `obs` ``t``, ``cell`` (the source) and `obsm` ``X_cfmvc_velocity``, the
    latent's change per unit of path time, the same at all times. `uns["cfmvc"]` is the provenance of the last.

    Raises
    ------
    NotTrainedError, UnknownConditionError, NonFiniteError
        As of `CFMVC.predict_counterfactual`.
    DataError
        If the times are fewer than two, not ascending or out of range, or another argument cannot be used.

    Examples
    --------
    >>> path = cfmvc_scvi.tl.counterfactual_trajectory(control, model, "A", times=3)
    >>> path.obs["t"].unique().tolist()
    [0.0, 0.5, 1.0]
    """
    if taken := sorted({"strength", "key_added", "n_samples", "batch"} & kwargs.keys()):
        raise DataError(f"{taken[0]}= has no meaning along a path; leave it out.")
    grid = np.linspace(0, 1, times) if isinstance(times, int) else np.asarray(times, dtype=float)
    if grid.ndim != 1 or len(grid) < 2 or not (np.diff(grid) > 0).all() or grid[0] < 0 or grid[-1] > _LONGEST:
        raise DataError(f"times are {np.ravel(grid).tolist()}; give two or more, ascending, in [0, {_LONGEST}].")
    asked = {"perturbation": perturbation, "seed": seed, **kwargs}
    end = model.predict_counterfactual(adata, **{**asked, "output": "latent"})
    velocity = end.obsm["X_cfmvc_counterfactual"] - end.obsm["X_cfmvc"]
    steps = []
    for number, t in enumerate(grid.tolist()):
        step = model.predict_counterfactual(adata, **asked, strength=t)
        step.obs = step.obs.assign(t=t, cell=step.obs_names.to_numpy(dtype=object))
        step.obs_names = [f"{name}-t{number}" for name in step.obs_names]
        step.obsm["X_cfmvc_velocity"] = velocity
        steps.append(step)
    path = ad.concat(steps, merge="same")
    path.uns["cfmvc"] = steps[-1].uns["cfmvc"]
    return path
