"""Draws the figure of the home page, `docs/_static/idea.svg`: `python docs/figures/idea.py`."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, Rectangle

CONTROL, TRUE, PREDICTED, INK = "#8a8a8a", "#0072B2", "#D55E00", "#1c2430"
TYPES = ("T cells", "monocytes", "B cells")
CENTRES = np.array([[-2.9, 1.9], [1.9, 1.8], [-0.9, -1.7]])
SHIFTS = np.array([[1.5, 0.75], [1.2, 1.05], [1.6, 0.55]])
RESPONSE = np.array([0.7, 1.5, 0.35, 2.2, 0.0])  # factors by which the genes of the last panel change


def experiment(ax: Axes, rng: np.random.Generator) -> None:
    """Cell types x treatments, as clouds of cells; one is missing."""
    for row, name in enumerate(TYPES):
        for column, colour in enumerate((CONTROL, TRUE)):
            frame = Rectangle((column - 0.44, -row - 0.44), 0.88, 0.88, facecolor="#f5f7f9", edgecolor="#dfe4ea")
            ax.add_patch(frame)
            if (row, column) == (2, 1):
                frame.set(edgecolor=PREDICTED, linestyle="--", linewidth=1.4, facecolor="white")
                ax.text(column, -row, "?", color=PREDICTED, fontsize=24, ha="center", va="center", fontweight="bold")
                continue
            points = np.clip(rng.normal(0, 0.15, (45, 2)), -0.36, 0.36) + (column, -row)
            ax.scatter(*points.T, s=7, color=colour, alpha=0.8, linewidths=0)
        ax.text(-0.54, -row, name, ha="right", va="center", fontsize=10, color=INK)
    for column, name in enumerate(("control", "treated")):
        ax.text(column, 0.54, name, ha="center", va="bottom", fontsize=10, color=INK)
    ax.set(xlim=(-1.62, 1.5), ylim=(-2.5, 0.8))


def latent(ax: Axes, rng: np.random.Generator) -> None:
    """Control and treated cells in the intrinsic latent, and the flow from the ones to the others."""
    for number, (centre, shift) in enumerate(zip(CENTRES, SHIFTS, strict=True)):
        before = rng.normal(centre, 0.36, (45, 2))
        after = before + shift + 0.25 * (before - centre)
        last = number == len(TYPES) - 1
        ax.scatter(*before.T, s=8, color=CONTROL, alpha=0.75, linewidths=0)
        style = {"facecolors": "none", "edgecolors": PREDICTED, "linewidths": 0.8} if last else {"color": TRUE}
        ax.scatter(*after.T, s=10, alpha=0.9, **(style if last else {**style, "linewidths": 0}))
        for start, end in list(zip(before, after, strict=True))[:7]:
            arrow = FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=7, linewidth=0.8, shrinkA=1, shrinkB=1)
            arrow.set(color=PREDICTED if last else INK, alpha=0.75)
            ax.add_patch(arrow)
        where = centre + shift / 2 + (0.25, -1.75)
        ax.text(*where, TYPES[number], ha="center", va="center", fontsize=10, color=PREDICTED if last else INK)
    ax.set(xlim=(-4.3, 5.2), ylim=(-3.9, 4.0))


def counts(ax: Axes, rng: np.random.Generator) -> None:
    """Counts of one cell: what is kept, thinned away and added."""
    own = np.array([6, 4, 7, 3, 5])
    thinned = np.array(
        [rng.binomial(x, min(1.0, factor)) for x, factor in zip(own, RESPONSE + (RESPONSE == 0), strict=True)]
    )
    added = np.round(own * np.maximum(RESPONSE - 1, 0) + 0.4 * (RESPONSE > 1)).astype(int)
    for gene, (x, kept, more) in enumerate(zip(own, thinned, added, strict=True)):
        for level in range(max(x, x + more)):
            square = Rectangle((gene - 0.4, level + 0.08), 0.8, 0.84, linewidth=1.0)
            if level >= x:
                square.set(facecolor=PREDICTED, edgecolor=PREDICTED)
            elif level >= kept:
                square.set(facecolor="white", edgecolor=CONTROL, linestyle=(0, (2, 1.5)))
            else:
                square.set(facecolor=CONTROL, edgecolor=CONTROL)
            ax.add_patch(square)
        ax.text(gene, -0.35, f"gene {gene + 1}", ha="center", va="top", fontsize=9, color=INK)
    swatches = (
        (CONTROL, CONTROL, "-", "kept"),
        ("white", CONTROL, "--", "thinned away"),
        (PREDICTED, PREDICTED, "-", "added"),
    )
    for place, (face, edge, line, name) in enumerate(swatches):
        x = (-0.4, 1.05, 3.35)[place]
        ax.add_patch(Rectangle((x, 8.35), 0.3, 0.55, facecolor=face, edgecolor=edge, linestyle=line))
        ax.text(x + 0.42, 8.62, name, va="center", fontsize=9.5, color=INK)
    ax.set(xlim=(-0.7, 4.7), ylim=(-1.1, 9.1))


def draw_idea() -> None:
    """Draw the three panels side by side."""
    plt.rcParams.update({"svg.hashsalt": "idea", "font.family": "DejaVu Sans", "svg.fonttype": "path"})
    figure = plt.figure(figsize=(12.0, 4.6))
    axes = [figure.add_axes((left, 0.15, width, 0.72)) for left, width in ((0.0, 0.29), (0.33, 0.34), (0.71, 0.29))]
    titles = (
        "1  Some cells were never treated",
        "2  A flow moves what a cell is",
        "3  Its own counts follow",
    )
    texts = (
        "B cells were measured as controls only.\nWhat would they have looked like?",
        "Treated cells of other types teach the effect;\nbatch and depth of the cell are held fixed.",
        "Integer counts in, integer counts out.\nNo effect gives back the very same cell.",
    )
    rng = np.random.default_rng(4)
    for draw, ax, title, text in zip((experiment, latent, counts), axes, titles, texts, strict=True):
        draw(ax, rng)
        ax.text(0.0, 1.06, title, transform=ax.transAxes, fontsize=12.5, fontweight="bold", color=INK)
        ax.text(0.0, -0.02, text, transform=ax.transAxes, va="top", fontsize=10.5, color="#566070", linespacing=1.5)
        ax.set_axis_off()
    figure.savefig(Path(__file__).parents[1] / "_static" / "idea.svg", metadata={"Date": None}, bbox_inches="tight")


if __name__ == "__main__":
    draw_idea()
