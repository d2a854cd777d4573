"""Names for what a combination does beyond the sum of its parts, per gene and as a whole."""

from __future__ import annotations

__all__ = ["GENE_CLASSES", "PairFit", "gene_classes", "pair_fit"]

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from cfmvc_scvi.errors import DataError

Array = NDArray[np.float64]

GENE_CLASSES = ("additive", "synergy", "suppression", "epistasis", "reversal")
_ALIKE = 0.2  # relative departure of the magnitude that still counts as additive
_DOMINANT = 0.5  # log10 ratio of coefficients beyond which one part masks the other
_SIMILAR = 0.7  # cosine beyond which two parts do the same
_FIT = 0.5  # share of the squared effect below which the combination does something new


def gene_classes(parts: ArrayLike, together: ArrayLike, sd: ArrayLike, level: float = 0.9) -> NDArray[np.str_]:
    r"""Class of the interaction of each gene.

    ``additive``: the interval of :math:`I = \Delta - \sum_j \Delta_j` holds 0. Else, with the effect :math:`\Delta` of
    the combination: ``epistasis`` if :math:`\Delta` cannot be told from that of one part, while the rest of the parts
    would by themselves make a difference; ``synergy`` if I has the sign of the sum; ``reversal`` if :math:`\Delta` goes
    clearly against the sum; ``suppression`` else.

    Parameters
    ----------
    parts
        Effects of the parts (parts, genes).
    together
        Effect of the combination (genes,).
    sd
        Standard deviation of the interaction (genes,).
    level
        Content of the intervals.

    Raises
    ------
    DataError
        If shapes differ, or there are fewer than two parts.
    """
    single, whole, error = (np.asarray(values, dtype=float) for values in (parts, together, sd))
    if single.ndim != 2 or len(single) < 2 or single.shape[1:] != whole.shape or whole.shape != error.shape:
        raise DataError(
            f"parts {single.shape}, together {whole.shape} and sd {error.shape} must be (parts, genes), with at least "
            "two parts, and (genes,) twice."
        )
    half = norm.ppf(0.5 + level / 2) * error
    total = single.sum(axis=0)
    interaction = whole - total
    masked = ((np.abs(whole - single) <= half) & (np.abs(total - single) > half)).any(axis=0)
    alike = np.sign(interaction) == np.sign(total)
    against = (np.sign(whole) == -np.sign(total)) & (np.abs(whole) > half)
    classes = np.select([np.abs(interaction) <= half, masked, alike, against], [0, 3, 1, 4], 2)
    return np.array(GENE_CLASSES)[classes]


@dataclass(frozen=True)
class PairFit:
    r"""A combination of two as a weighted sum of its parts, :math:`\Delta_{ab} = c_1 \Delta_a + c_2 \Delta_b`.

    Parameters
    ----------
    first, second
        The coefficients; 1 and 1 is additive.
    magnitude
        :math:`\sqrt{(c_1^2 + c_2^2) / 2}`, 1 for additive.
    similarity
        Cosine of the effects of the parts.
    explained
        Share of the squared effect of the combination that the sum explains.
    kind
        ``neomorphism``, ``redundancy``, ``epistasis``, ``synergy``, ``suppression`` or ``additive``.
    """

    first: float
    second: float
    magnitude: float
    similarity: float
    explained: float
    kind: str


def pair_fit(first: ArrayLike, second: ArrayLike, together: ArrayLike) -> PairFit:
    """Fit the effect of a pair by those of its parts (genes,), and name the whole.

    ``neomorphism``: the sum explains less than half of the squared effect. ``redundancy``: the parts do the same
    (cosine above .7), and both together do less than their sum. ``epistasis``: one coefficient is more than three times
    the other. ``synergy`` and ``suppression``: the magnitude is more than a fifth above or below that of the sum.

    Raises
    ------
    DataError
        If an effect is zero or shapes differ.

    References
    ----------
    Norman et al., Exploring genetic interaction manifolds constructed from rich single-cell phenotypes, Science 2019;
    the measures are theirs with least squares for Theil-Sen, the limits ours. Where the parts do the same,
    coefficients are not known one by one; their minimum-norm solution shares them out.
    """
    a, b, ab = (np.asarray(values, dtype=float) for values in (first, second, together))
    if a.ndim != 1 or a.shape != b.shape or a.shape != ab.shape:
        raise DataError(f"effects have shapes {a.shape}, {b.shape} and {ab.shape}; give one value per gene in each.")
    lengths = [np.linalg.norm(values) for values in (a, b, ab)]
    if min(lengths) == 0:
        raise DataError("a part or the combination has no effect on any gene, so there is nothing to fit.")
    design = np.column_stack([a, b])
    coefficients = np.linalg.lstsq(design, ab, rcond=1e-6)[0]
    explained = 1 - float(((ab - design @ coefficients) ** 2).sum() / (ab**2).sum())
    similarity = float(a @ b / (lengths[0] * lengths[1]))
    magnitude = float(np.sqrt((coefficients**2).mean()))
    sizes = np.maximum(np.abs(coefficients), 1e-12)
    if explained < _FIT:
        kind = "neomorphism"
    elif similarity > _SIMILAR and np.linalg.norm(ab) < (1 - _ALIKE) * np.linalg.norm(a + b):
        kind = "redundancy"
    elif abs(np.log10(sizes[0] / sizes[1])) > _DOMINANT:
        kind = "epistasis"
    elif abs(magnitude - 1) <= _ALIKE:
        kind = "additive"
    else:
        kind = "synergy" if magnitude > 1 else "suppression"
    return PairFit(float(coefficients[0]), float(coefficients[1]), magnitude, similarity, explained, kind)
