"""Figures of a report, as images that stand inside the page."""

from __future__ import annotations

__all__ = [
    "GroupCells",
    "Image",
    "calibration",
    "coverage",
    "delta",
    "distributions",
    "image",
    "joint_coordinates",
    "short",
    "skill",
    "trust",
    "umap",
]

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.random import Generator
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from cfmvc_scvi import metrics, pl
from cfmvc_scvi._keys import METRICS
from cfmvc_scvi.benchmark.report.tables import number

Array = NDArray[np.float64]

_DPI = 170
_N_GENES = 6  # of the violins
_MOST_NAMES = 12  # beside points
_LONGEST_NAME = 10  # characters in a figure
_N_COMPONENTS, _N_NEIGHBOURS = 30, 15


@dataclass(frozen=True)
class Image:
    """An image in the page.

    Parameters
    ----------
    source
        PNG as a data URI.
    alt
        What it shows, for those who cannot see it.
    width, height
        In CSS pixels, at which text has the size of the page's small print.
    caption
        What stands below it.
    """

    source: str
    alt: str
    width: int
    height: int
    caption: str


@dataclass(frozen=True)
class GroupCells:
    """Control, true and predicted cells of one held-out (condition, context), and what follows from them.

    Parameters
    ----------
    condition, context
        What was held out.
    cells
        ``"control"``, ``"true"`` and ``"predicted"`` to log1p CP10k, (cells, genes).
    genes
        Names, (genes,).
    """

    condition: str
    context: str
    cells: Mapping[str, Array]
    genes: Sequence[str]

    def effect(self, of: str) -> Array:
        """Difference of mean log1p CP10k from the control cells, (genes,)."""
        return self.cells[of].mean(axis=0) - self.cells["control"].mean(axis=0)

    def top_genes(self) -> NDArray[np.intp]:
        """Genes of the strongest differential expression of the true cells, the strongest first."""
        scores = metrics.de_scores(self.cells["true"], self.cells["control"])
        return metrics.top_genes(scores, min(_N_GENES, len(self.genes)))


def image(size: tuple[float, float], alt: str, draw: Callable[[Axes], object], caption: str) -> Image:
    """Draw on a figure that pyplot does not know: no window, no state, whatever the caller has open."""
    figure, stream = Figure(figsize=size, layout="constrained"), BytesIO()
    draw(figure.subplots())
    figure.savefig(stream, format="png", dpi=_DPI, metadata={"Software": None})
    source = "data:image/png;base64," + b64encode(stream.getvalue()).decode("ascii")
    return Image(source, alt, round(96 * size[0]), round(96 * size[1]), caption)


def short(name: str) -> str:
    """A name that fits into a figure."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def skill(skills: pd.DataFrame, model: str) -> Image | None:
    """Skill of all methods; `skills` is methods x metrics. None if skill is defined for no metric."""
    drawn = skills.dropna(axis=1, how="all")
    if drawn.shape[1] == 0:
        return None
    parts = [f"{METRICS[str(name)].label} {number(drawn.loc[model, name], 2)}" for name in drawn]
    alt = f"Skill of {model} between floor (0) and ceiling (1): {', '.join(parts)}. The table below has all numbers."
    caption = (
        "Skill of each method between floor and ceiling. The best of the others may be another one in each metric; the "
        "table names the best simple baseline."
    )
    size = (5.6, 1.1 + 0.36 * drawn.shape[1])
    return image(size, alt, lambda ax: pl.skill(drawn, model, ax=ax, show=False), caption)


def delta(group: GroupCells) -> Image:
    """Predicted against true effect of each gene."""
    predicted, true = group.effect("predicted"), group.effect("true")
    r = np.corrcoef(predicted, true)[0, 1] if predicted.std() > 0 else 0.0
    alt = (
        f"Predicted against true effect of {group.condition} in {group.context} on each of {len(true):,} genes; "
        f"correlation {r:.2f}."
    )
    names = [short(name) for name in group.genes]
    caption = "Effect on the mean of each gene, predicted against true."
    return image((3.1, 3.1), alt, lambda ax: pl.delta(predicted, true, names, 8, ax=ax, show=False), caption)


def distributions(group: GroupCells) -> Image:
    """Expression of the genes of strongest true effect, in control, true and predicted cells."""
    top = group.top_genes()
    names = [str(group.genes[i]) for i in top]
    few = {name: cells[:, top] for name, cells in group.cells.items()}
    means = [f"{gene} {' / '.join(f'{few[name][:, i].mean():.1f}' for name in few)}" for i, gene in enumerate(names)]
    alt = (
        f"Distribution of {len(names)} genes in {', '.join(few)} cells of {group.context} under {group.condition}; "
        f"means: {'; '.join(means)}."
    )

    def draw(ax: Axes) -> None:
        pl.distributions(few, [short(name) for name in names], ax=ax, show=False)
        ax.tick_params(axis="x", rotation=30 if max(map(len, names)) > 6 else 0)

    return image((4.5, 3.1), alt, draw, "Genes of the strongest true response, cell by cell.")


def joint_coordinates(groups: Sequence[GroupCells], n_cells: int, rng: Generator) -> tuple[Array, pd.DataFrame]:
    """UMAP of cells of all groups, in the space of a PCA that was fitted without the predicted ones.

    Parameters
    ----------
    groups
        Held-out groups; control cells that belong to several are taken once for each.
    n_cells
        At most as many control, true and predicted cells, over all groups.
    rng
        Draws the cells. PCA and UMAP have fixed seeds.

    Returns
    -------
    Coordinates (cells, 2), and the role, condition and context of each cell.
    """
    share = max(2, n_cells // len(groups))
    values, labels = [], []
    for group in groups:
        for role, cells in group.cells.items():
            drawn = cells[np.sort(rng.permutation(len(cells))[:share])]
            values.append(drawn.astype(np.float32))
            labels += [(role, group.condition, group.context)] * len(drawn)
    frame, matrix = pd.DataFrame(labels, columns=["role", "condition", "context"]), np.vstack(values)
    real = matrix[(frame["role"] != "predicted").to_numpy()]
    pca = PCA(min(_N_COMPONENTS, *(np.array(real.shape) - 1)), svd_solver="randomized", random_state=0).fit(real)
    cells = AnnData(obs=frame.rename(index=str), obsm={"X_pca": pca.transform(matrix)})
    sc.pp.neighbors(cells, n_neighbors=min(_N_NEIGHBOURS, len(frame) - 1), use_rep="X_pca", random_state=0)
    sc.tl.umap(cells, random_state=0)
    return np.asarray(cells.obsm["X_umap"], dtype=np.float64), frame


def umap(coordinates: Array, labels: pd.DataFrame, title: str, *, small: bool = False) -> Image:
    """Cells in joint coordinates; a small map has no legend."""
    counts = labels["role"].value_counts()
    numbers = ", ".join(f"{counts[role]:,} {role}" for role in ("control", "true", "predicted"))
    alt = f"Joint UMAP of {title}: {numbers} cells. Predicted cells should lie where the true ones do."
    limits = [
        (low - 0.5, high + 0.5) for low, high in zip(coordinates.min(axis=0), coordinates.max(axis=0), strict=True)
    ]

    def draw(ax: Axes) -> None:
        pl.embedding(coordinates, labels["role"], ax=ax, show=False)
        ax.set(xlim=limits[0], ylim=limits[1])
        legend = ax.get_legend()
        if small and legend is not None:
            legend.remove()

    caption = (
        "Joint UMAP of control, true and predicted cells: log1p CP10k, PCA fitted on control and true cells and "
        f"applied to all, {_N_NEIGHBOURS} neighbours, fixed seeds. Groups are drawn in equal numbers at most. "
        "Distances on such a map mean little; overlap of true and predicted cells is what to look for."
    )
    return image((3.0, 3.1) if small else (6.0, 4.0), alt, draw, "Its cells on the joint UMAP." if small else caption)


def coverage(frame: pd.DataFrame) -> dict[float, float]:
    """Promised to observed coverage, weighted by the column n if there is one."""
    weights = frame["n"] if "n" in frame else pd.Series(1.0, index=frame.index)
    groups = frame.assign(weight=weights, inside=weights * frame["observed"]).groupby("nominal")[["weight", "inside"]]
    return {float(row.Index): float(row.inside / row.weight) for row in groups.sum().itertuples()}


def calibration(frame: pd.DataFrame) -> Image:
    """Promised against observed coverage."""
    parts = ", ".join(
        f"{observed:.0%} inside the {nominal:.0%} intervals" for nominal, observed in coverage(frame).items()
    )
    alt = f"Coverage of intervals: {parts}."
    caption = "Share of true effects inside the intervals, against the share that these promise."
    return image((3.9, 3.9), alt, lambda ax: pl.calibration(frame, ax=ax, show=False), caption)


def trust(frame: pd.DataFrame) -> Image:
    """Error against trust score; `frame` has the index (condition, context)."""
    one = frame.index.get_level_values("condition").nunique() == 1
    names = [context if one else f"{context}, {condition}" for condition, context in frame.index]
    alt = f"Error of {len(frame)} held-out conditions against their trust score."
    caption = "Error of each held-out condition against the trust put in it beforehand."
    draw = partial(pl.trust, frame["trust"], frame["error"], names if len(frame) <= _MOST_NAMES else None, show=False)
    return image((4.9, 3.9), alt, lambda ax: draw(ax=ax), caption)
