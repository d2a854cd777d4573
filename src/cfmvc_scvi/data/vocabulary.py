"""Conditions as vectors: the perturbations of a data set, its control, and combinations of them with doses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from cfmvc_scvi._keys import COMBINATION_SEPARATOR
from cfmvc_scvi.data._text import closest, counted, distinct, label_strings, listing
from cfmvc_scvi.data.dose import part_doses
from cfmvc_scvi.errors import DataError, UnknownConditionError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Vocabulary", "condition_table"]


_MOST_BYTES = 2**24  # of a design that are written out at a time


@dataclass(frozen=True)
class Vocabulary:
    """Perturbations of a data set and the written form of their combinations.

    A condition is a row of a design matrix: per perturbation its dose, 0 where it is absent. Control is the zero row,
    and so is any perturbation at dose 0. In a label, 'A+B' and ' B + A' are the same combination, and a part that is
    the control label counts for nothing: 'A+control' is 'A'.

    Parameters
    ----------
    perturbations
        Names of single perturbations; their order is the order of the design's columns.
    control
        Label of unperturbed cells.
    separator
        What stands between the parts of a combination.

    Raises
    ------
    DataError
        If a name is empty, given twice, equal to the control label, or contains the separator.
    """

    perturbations: tuple[str, ...]
    control: str
    separator: str = COMBINATION_SEPARATOR

    def __post_init__(self) -> None:
        if not self.separator:
            raise DataError("the separator of combinations is empty; pass a text such as '+'")
        if len(set(self.perturbations)) != len(self.perturbations):
            repeated = sorted({name for name in self.perturbations if self.perturbations.count(name) > 1})
            raise DataError(f"perturbations given twice: {listing(repeated)}; name each once")
        for name in (*self.perturbations, self.control):
            if not name or name != name.strip():
                raise DataError(f"{name!r} is no name of a condition: it is empty or padded with spaces; rename it")
        for name in self.perturbations:
            if name == self.control or self.separator in name:
                raise DataError(
                    f"{name!r} cannot be a single perturbation: it is the control label or contains the separator "
                    f"{self.separator!r}; rename it or choose another separator"
                )

    @classmethod
    def from_labels(
        cls, labels: Sequence[Any] | NDArray[Any] | pd.Series, control: Any, separator: str = COMBINATION_SEPARATOR
    ) -> Vocabulary:
        """Collect the single perturbations that occur in labels, sorted by name.

        Parameters
        ----------
        labels
            One label per cell (or per condition), of any dtype without missing values.
        control
            Label of unperturbed cells; it need not occur.
        separator
            What stands between the parts of a combination.

        Raises
        ------
        DataError
            If a label is missing or empty, repeats a part, or has an empty part.
        """
        control = str(control).strip()  # 0 or False, where labels are numbers or booleans
        _, unique = distinct(label_strings(labels))
        parts = {part for label in unique for part in _written_parts(label, control, separator)}
        return cls(tuple(sorted(parts - {control})), control, separator)

    def extended(self, names: Iterable[str]) -> Vocabulary:
        """Return a vocabulary with further perturbations, sorted by name.

        Parameters
        ----------
        names
            Single perturbations; known ones are welcome.

        Raises
        ------
        DataError
            As of the class.
        """
        return Vocabulary(tuple(sorted({*self.perturbations, *names})), self.control, self.separator)

    @property
    def n_perturbations(self) -> int:
        """How many single perturbations there are, which is how many columns a design has."""
        return len(self.perturbations)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {self.control: -1} | {name: position for position, name in enumerate(self.perturbations)}

    def design(
        self,
        labels: str | Sequence[Any] | NDArray[Any] | pd.Series,
        doses: float | str | Sequence[Any] | NDArray[Any] | pd.Series | None = None,
    ) -> NDArray[np.float32]:
        """Encode labels as a dose-weighted multi-hot matrix.

        Parameters
        ----------
        labels
            One label per cell, or a single label.
        doses
            One dose per cell, or one for all, in the unit of the data: a number >= 0 that applies to all parts, or a
            text with one number per part ('0.5+1'). Parts that are control need none. Without doses, each is 1.

        Returns
        -------
        Design, shape (cells, perturbations).

        Raises
        ------
        UnknownConditionError
            If a part of a label is neither a perturbation nor the control.
        DataError
            If a label is missing or malformed, the lengths differ, or a dose is missing, negative or not finite.
        """
        return self.sparse_design(labels, doses).toarray()

    def sparse_design(
        self,
        labels: str | Sequence[Any] | NDArray[Any] | pd.Series,
        doses: float | str | Sequence[Any] | NDArray[Any] | pd.Series | None = None,
    ) -> sp.csr_matrix:
        """Return the same matrix as `design`, sparse; parameters and errors as there."""
        labels = [labels] if isinstance(labels, str) else labels
        codes, unique = distinct(label_strings(labels))
        written = [_written_parts(label, self.control, self.separator) for label in unique]
        self._refuse_unknown(unique, written)
        positions = np.full((len(written), max(map(len, written), default=1)), -1)
        for row, parts in zip(positions, written, strict=True):
            row[: len(parts)] = [self._positions[part] for part in parts]
        positions = positions[codes]
        weights = np.ones(positions.shape)
        if doses is not None:
            if not isinstance(doses, str) and np.ndim(doses) > 0 and np.shape(doses)[0] != len(codes):
                raise DataError(
                    f"{len(codes)} labels but {np.shape(doses)[0]} doses; give one per label, or one for all"
                )
            weights = part_doses(
                doses, np.array([len(parts) for parts in written], dtype=np.intp)[codes], self.separator
            )
            self._refuse_doses(labels, doses, (positions >= 0) & ~_is_dose(weights))
        cells, slots = np.nonzero(positions >= 0)
        entries = weights[cells, slots].astype(np.float32), (cells, positions[cells, slots])
        design = sp.csr_matrix(entries, shape=(len(codes), self.n_perturbations))
        design.eliminate_zeros()
        return design

    def names(self, design: Any, with_dose: bool = False) -> list[str]:
        """Write the rows of a design as labels, the parts in the vocabulary's order.

        Parameters
        ----------
        design
            Design, shape (cells, perturbations) or (perturbations,), dense or CSR.
        with_dose
            Append each part's dose: 'A@0.5+B@1'.

        Raises
        ------
        DataError
            If the design does not have one column per perturbation.
        """
        design = design if sp.issparse(design) else np.atleast_2d(design)
        if design.shape[1] != self.n_perturbations:
            raise DataError(
                f"the design has {design.shape[1]} columns; expected {self.n_perturbations}, one per perturbation"
            )
        rows, codes = condition_table(design)
        names = []
        for row in rows:
            parts = [(self.perturbations[position], row[position]) for position in np.flatnonzero(row)]
            texts = [f"{name}@{str(dose).removesuffix('.0')}" if with_dose else name for name, dose in parts]
            names.append(self.separator.join(texts) or self.control)
        return [names[code] for code in codes]

    def canonical(self, label: str) -> str:
        """Return the one form in which this package writes a condition: known parts in the vocabulary's order.

        Parameters
        ----------
        label
            A label in any accepted form.

        Raises
        ------
        UnknownConditionError
            If a part is neither a perturbation nor the control.
        """
        return self.names(self.design(label))[0]

    def to_dict(self) -> dict[str, Any]:
        """Return the vocabulary as plain values that JSON can hold."""
        return {"perturbations": list(self.perturbations), "control": self.control, "separator": self.separator}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Vocabulary:
        """Rebuild a vocabulary from `to_dict`.

        Parameters
        ----------
        values
            What `to_dict` returned.
        """
        return cls(tuple(values["perturbations"]), values["control"], values["separator"])

    def _refuse_unknown(self, labels: Iterable[str], written: Iterable[list[str]]) -> None:
        unknown = {
            part: label
            for label, parts in zip(labels, written, strict=True)
            for part in parts
            if part not in self._positions
        }
        if not unknown:
            return
        named = [repr(part) if part == label else f"{part!r} (in {label!r})" for part, label in unknown.items()]
        nearest = {part: closest(part, self._positions) for part in unknown}
        hints = [f"{part!r} -> {match!r}" for part, match in nearest.items() if match is not None]
        raise UnknownConditionError(
            f"unknown {'perturbation' if len(named) == 1 else 'perturbations'} {listing(named)}. "
            f"Known: control {self.control!r} and {listing(self.perturbations)}. "
            + (f"Closest: {listing(hints)}. " if hints else "")
            + "Correct the spelling, train with cells of it, or give its features: a row of the table that "
            "perturbation_embeddings_key= of setup_anndata names."
        )

    def _refuse_doses(self, labels: Any, doses: Any, invalid: NDArray[np.bool_]) -> None:
        cells = np.flatnonzero(invalid.any(axis=1))
        if not cells.size:
            return
        cell_names = labels.index if hasattr(labels, "iloc") else range(len(labels))
        entries = np.full(len(labels), doses, dtype=object) if np.ndim(doses) == 0 else np.asarray(doses, dtype=object)
        label_texts = label_strings(labels)
        shown = [f"{cell_names[cell]} ({label_texts[cell]!r} with dose {entries[cell]})" for cell in cells[:5]]
        where = f" in {doses.name!r}" if hasattr(doses, "iloc") else ""
        raise DataError(
            f"{counted(len(cells), 'cell')} without a valid dose{where}: {', '.join(shown)}"
            f"{', ...' if len(cells) > 5 else ''}; a dose is a finite number >= 0, or one number per "
            f"part such as '0.5{self.separator}1'. Correct or remove these cells"
        )


def condition_table(design: Any) -> tuple[NDArray[np.floating], NDArray[np.intp]]:
    """Return the distinct conditions of a design, and which of them each cell has.

    Parameters
    ----------
    design
        Dose-weighted multi-hot design with entries >= 0, shape (cells, perturbations), dense or CSR.

    Returns
    -------
    rows
        Distinct rows, shape (conditions, perturbations), sorted by the last column first: control, A, B, A+B, C. Row 0
        is control, whether or not a cell has it.
    codes
        Row of each cell, shape (cells,).

    Raises
    ------
    DataError
        If an entry is negative or NaN: control would not come first.
    """
    design = design if sp.issparse(design) else np.asarray(design)
    design = design if np.issubdtype(design.dtype, np.floating) else design.astype(np.float64)
    if not ((design.data if sp.issparse(design) else design) >= 0).all():
        raise DataError("a design holds doses, which are >= 0 and not NaN; build it with Vocabulary.design")
    n_perturbations = design.shape[1]
    # numpy.unique over rows takes minutes where a dictionary takes seconds
    found = {np.zeros(n_perturbations, dtype=design.dtype).tobytes(): 0}
    n_cells = design.shape[0]
    codes = np.zeros(n_cells, dtype=np.intp)
    step = max(1, _MOST_BYTES // max(1, n_perturbations * design.dtype.itemsize))
    for first in range(0, n_cells if n_perturbations else 0, step):
        rows = design[first : first + step]
        dense = rows.toarray() if sp.issparse(rows) else rows
        block = np.ascontiguousarray(dense) + 0.0  # -0.0 has other bytes than 0.0
        texts: list[Any] = block.view(np.dtype((np.void, block[:1].nbytes))).ravel().tolist()
        codes[first : first + step] = [found.setdefault(text, len(found)) for text in texts]
    rows = np.frombuffer(b"".join(found), dtype=design.dtype).reshape(len(found), n_perturbations)
    order = np.lexsort(rows.T) if n_perturbations else np.arange(1)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rows[order], rank[codes]


def _is_dose(weights: NDArray[np.float64]) -> NDArray[np.bool_]:
    return (weights >= 0) & (weights <= np.finfo(np.float32).max)


def _written_parts(label: str, control: str, separator: str) -> list[str]:
    """Return the parts of a label as written, control included; refuse empty and repeated parts."""
    if label == control:
        return [control]
    parts = [part.strip() for part in label.split(separator)]
    if len(parts) > 1 and "" in parts:
        raise DataError(
            f"the combination {label!r} has an empty part; rename it, or choose a separator other than {separator!r} "
            "if this is the name of one perturbation"
        )
    repeated = sorted({part for part in parts if part != control and parts.count(part) > 1})
    if repeated:
        raise DataError(
            f"the combination {label!r} names {listing(repeated)} twice; name it once and express the rest as dose"
        )
    return parts
