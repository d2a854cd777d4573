"""Names beside points, where there is room for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from cfmvc_scvi.pl._style import GREY, figure_of

__all__ = ["label_points", "shorten"]

_LONGEST_NAME = 14  # characters of a gene
_OFFSETS = ((4, 2), (-4, 2), (4, -8), (-4, -8), *((x, y) for x in (12, -12, 28, -28) for y in (12, -18, 0)))  # points


def label_points(
    ax: Axes, points: NDArray[np.float64], names: Mapping[int, str], taken: Sequence[Text] = (), *, size: float = 7
) -> None:
    """Write names beside their points, at the place of a few that covers the fewest points; without a place, not.

    Parameters
    ----------
    ax
        Axes whose limits are final.
    points
        All points that are drawn (points, 2), in the coordinates of the data.
    names
        Row of `points` to its name; the first find room first.
    taken
        Texts that must not be covered.
    size
        Of the font, in points.
    """
    figure_of(ax).draw_without_rendering()
    frame, pixels = ax.get_window_extent(), ax.transData.transform(points)
    boxes_taken = [text.get_window_extent() for text in taken]
    for number, name in names.items():
        places = [_text(ax, name, points[number], offset, size) for offset in _OFFSETS]
        boxes = [text.get_window_extent().padded(1.0) for text in places]
        covered = [_n_inside(box, pixels) if _fits(box, frame, boxes_taken) else np.inf for box in boxes]
        best = int(np.argmin(covered))
        for place, text in enumerate(places):
            if place != best or np.isinf(covered[best]):
                text.remove()
        if np.isfinite(covered[best]):
            boxes_taken.append(boxes[best])


def shorten(name: str) -> str:
    """Cut a name of a gene that would not fit."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _text(ax: Axes, name: str, point: NDArray[np.float64], offset: tuple[int, int], size: float) -> Annotation:
    arrow = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2}
    return ax.annotate(
        name,
        (point[0], point[1]),
        offset,
        textcoords="offset points",
        ha="left" if offset[0] > 0 else "right",
        fontsize=size,
        arrowprops=arrow if abs(offset[0]) > 5 else None,
    )


def _fits(box: Bbox, frame: Bbox, taken: list[Bbox]) -> bool:
    inside = frame.contains(*box.min) and frame.contains(*box.max)
    return inside and not any(box.overlaps(other) for other in taken)


def _n_inside(box: Bbox, pixels: NDArray[np.float64]) -> int:
    return int(((pixels > box.min) & (pixels < box.max)).all(axis=1).sum())
