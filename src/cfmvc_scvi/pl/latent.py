"""Cells in two dimensions, one panel for each column of obs."""

from __future__ import annotations

__all__ = ["latent"]

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.colors import is_color_like

from cfmvc_scvi.errors import DataError, UnknownConditionError
from cfmvc_scvi.pl._style import colours, finish, panels
from cfmvc_scvi.pl.embedding import embedding

_MOST_CATEGORIES = 102


def latent(
    adata: AnnData,
    keys: str | Sequence[str],
    *,
    basis: str = "X_umap",
    axes: Sequence[Axes] | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> list[Axes]:
    """Draw cells at their coordinates once for each column of obs, coloured by its categories.

    Of a good intrinsic latent, cell types are apart, batches are mixed, and conditions differ as far as they act.

    Parameters
    ----------
    adata
        Cells with coordinates, for example of ``scanpy.tl.umap`` on neighbours in ``X_cfmvc``. Reads ``obs[key]``,
        ``obsm[basis]``, and ``uns[key + "_colors"]`` as scanpy writes it.
    keys
        Columns of `obs`, with labels or numbers of few values.
    basis
        Key of `obsm` with the coordinates; the first two are drawn.
    axes
        One axes for each panel; None makes a figure.
    show
        Show the figure now; None does so where matplotlib is interactive, unless axes are given.
    save
        File to save the figure to.

    Returns
    -------
    The axes of the panels.

    Raises
    ------
    UnknownConditionError
        If a column or the coordinates are not there.
    DataError
        If a column has more than 102 values, or there are not as many axes as panels.

    Examples
    --------
    >>> from anndata import AnnData
    >>> from cfmvc_scvi import pl
    >>> import numpy as np
    >>> import pandas as pd
    >>> cells = AnnData(obs=pd.DataFrame({"cell_type": ["B", "T"]}, index=["c0", "c1"]), obsm={"X_umap": np.eye(2)})
    >>> axes = pl.latent(cells, "cell_type")
    """
    chosen = [keys] if isinstance(keys, str) else list(keys)
    absent = [f"obs['{key}']" for key in chosen if key not in adata.obs]
    if basis not in adata.obsm:
        absent.append(f"obsm['{basis}']")
    if absent or not chosen:
        known = f"obs: {', '.join(adata.obs)}; obsm: {', '.join(adata.obsm)}"
        raise UnknownConditionError(f"not there: {', '.join(absent) or 'a column to draw'}. What is: {known}.")
    points = np.asarray(adata.obsm[basis])[:, :2]
    drawn, own = panels(axes, len(chosen), (4.4, 3.4), n_columns=3)
    name = basis.removeprefix("X_").replace("_", " ")
    for ax, key in zip(drawn, chosen, strict=True):
        palette = _palette(adata, key)
        labels = adata.obs[key].astype(str).to_numpy()
        embedding(points, labels, title=key, axis_name=name.upper(), palette=palette, ax=ax, show=False)
    finish(drawn[0], show, save, own)
    return drawn


def _palette(adata: AnnData, key: str) -> dict[str, str]:
    """Colours of the categories: those in uns, as far as they fit, else ours."""
    column = adata.obs[key]
    names = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else sorted(column.unique())
    labels = [str(name) for name in names]
    if len(labels) > _MOST_CATEGORIES:
        raise DataError(
            f"obs['{key}'] has {len(labels)} values, more than can be told apart; draw labels, not measurements."
        )
    stored = [str(colour) for colour in adata.uns.get(f"{key}_colors", ())]
    if len(stored) == len(labels) and all(is_color_like(colour) for colour in stored):
        return dict(zip(labels, stored, strict=True))
    return colours(labels)
