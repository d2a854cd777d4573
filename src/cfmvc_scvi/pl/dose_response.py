"""Effects over doses."""

from __future__ import annotations

__all__ = ["dose_response"]

import os
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.pl._style import GREY, colours, finish, new_axes, plain

_MOST = 6  # curves that can be told apart


def dose_response(
    result: Mapping[str, pd.DataFrame],
    genes: Sequence[str] | None = None,
    context: str | None = None,
    *,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Draw the expected effects of genes over doses in one context, with intervals and doses of half effect.

    Dots are doses that training saw, with their intervals as bars; bands are intervals of the doses in between, which
    are wider, and beyond the highest dose lines are dashed. A triangle on the axis marks the dose of half effect of a
    gene, where the doses seen tell it.

    Parameters
    ----------
    result
        What `tl.dose_response` wrote: ``curves`` and ``ec50``.
    genes
        Genes to draw; None is the first six.
    context
        Context; None is the first.
    title
        Title of the axes; None is the context.
    ax
        Axes to draw on; None makes a figure.
    show
        Show the figure now; None does so where matplotlib is interactive, unless axes are given.
    save
        File to save the figure to.

    Returns
    -------
    The axes.

    Raises
    ------
    DataError
        If the context or a gene has no curve.

    Examples
    --------
    >>> cfmvc_scvi.tl.dose_response(adata, model, "A")
    >>> ax = cfmvc_scvi.pl.dose_response(adata.uns["dose_response"], context="type_1")
    """
    curves, halves = result["curves"], result["ec50"]
    contexts = list(dict.fromkeys(curves["context"]))
    context = contexts[0] if context is None else context
    if context not in contexts:
        raise DataError(f"no curves of context {context!r}; there are {', '.join(contexts)}.")
    rows, half = curves[curves["context"] == context], halves[halves["context"] == context].set_index("gene")
    known = list(dict.fromkeys(rows["gene"]))
    chosen = known[:_MOST] if genes is None else list(genes)
    if missing := [gene for gene in chosen if gene not in known]:
        raise DataError(f"{len(missing)} genes have no curve in {context!r}, first {missing[0]!r}; pass genes= to tl.")
    ax, own = new_axes(ax, (4.5, 3.4))
    ax.axhline(0.0, color="#dddddd", linewidth=0.8, zorder=0)
    for gene, colour in colours(chosen).items():
        curve = rows[rows["gene"] == gene].sort_values("dose")
        inside = curve[~curve["extrapolated"]]
        beyond = pd.concat([inside.tail(1), curve[curve["extrapolated"]]])
        ax.plot(inside["dose"], inside["delta"], color=colour, linewidth=1.5, label=gene)
        ax.plot(beyond["dose"], beyond["delta"], color=colour, linewidth=1.2, linestyle="--")
        between, seen = curve[~curve["seen"]], curve[curve["seen"]]
        ax.fill_between(between["dose"], between["low"], between["high"], color=colour, alpha=0.1, linewidth=0)
        ax.vlines(seen["dose"], seen["low"], seen["high"], color=colour, linewidth=2.2, alpha=0.5, zorder=2)
        ax.scatter(seen["dose"], seen["delta"], color=colour, s=16, zorder=3)
        if half.loc[gene, "identified"]:
            ax.plot(
                half.loc[gene, "ec50"], 0.0, marker="^", color=colour, transform=ax.get_xaxis_transform(), clip_on=False
            )
    ax.set(xscale="log")
    seen_doses = np.unique(rows["dose"][rows["seen"]])
    if len(seen_doses) <= _MOST:
        ax.set_xticks(seen_doses, [f"{dose:g}" for dose in seen_doses])
        ax.minorticks_off()
    ax.set_xlabel("dose", fontsize=9)
    ax.set_ylabel("effect (Δ mean log1p CP10k)", fontsize=9)
    ax.set_title(context if title is None else title, fontsize=10, color="black" if title else GREY)
    ax.legend(frameon=False, fontsize=8)
    plain(ax)
    finish(ax, show, save, own)
    return ax
