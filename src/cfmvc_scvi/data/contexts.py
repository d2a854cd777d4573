"""Contexts: the groups of cells, label x sample, within which a perturbation has one effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cfmvc_scvi.data._text import counted, did_you_mean, listing
from cfmvc_scvi.errors import DataError, UnknownConditionError

__all__ = ["Contexts"]

_Codes = Sequence[int] | NDArray[Any]


@dataclass(frozen=True)
class Contexts:
    """Numbered (label, sample) groups of cells, for example cell type x donor.

    Parameters
    ----------
    names
        Name of each context: 'B cells', or with samples 'B cells | donor1'.
    label
        Label code of each context.
    sample
        Sample code of each context; 0 without samples.
    label_names
        Name of each label code.
    sample_names
        Name of each sample code; None if cells are not grouped by sample.

    Raises
    ------
    DataError
        If two contexts have one name.
    """

    names: tuple[str, ...]
    label: tuple[int, ...]
    sample: tuple[int, ...]
    label_names: tuple[str, ...]
    sample_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise DataError(f"several contexts are called {listing(repeated)}; rename their labels or samples")

    @classmethod
    def from_codes(
        cls,
        labels: _Codes,
        label_names: Sequence[Any],
        samples: _Codes | None = None,
        sample_names: Sequence[Any] | None = None,
    ) -> Contexts:
        """Make a context of each (label, sample) pair that occurs, in the order of their codes.

        Parameters
        ----------
        labels
            Label code of each cell, shape (cells,) or (cells, 1).
        label_names
            Name of each label code.
        samples
            Sample code of each cell; None if cells are not grouped by sample.
        sample_names
            Name of each sample code, given together with `samples`.

        Raises
        ------
        DataError
            If only one of `samples` and `sample_names` is given, or a code has no name.
        """
        names = None if sample_names is None else tuple(str(name) for name in sample_names)
        empty = cls((), (), (), tuple(str(name) for name in label_names), names)
        return empty.extend(labels, samples)

    @property
    def n_contexts(self) -> int:
        """Number of contexts."""
        return len(self.names)

    def encode(
        self, labels: _Codes, samples: _Codes | None = None, unseen: Literal["error", "new"] = "error"
    ) -> NDArray[np.int64]:
        """Return the context code of each cell.

        Parameters
        ----------
        labels
            Label code of each cell, shape (cells,) or (cells, 1).
        samples
            Sample code of each cell, if contexts have samples.
        unseen
            ``"error"`` refuses a pair that is no context; ``"new"`` numbers such pairs onwards from `n_contexts`, in
            the order of their codes, as `extend` does.

        Returns
        -------
        Codes, shape (cells,).

        Raises
        ------
        UnknownConditionError
            If a pair is no context and `unseen` is ``"error"``.
        DataError
            If samples are given to contexts without, or the reverse.
        """
        pairs, inverse = self._pairs(labels, samples)
        known = {pair: code for code, pair in enumerate(zip(self.label, self.sample, strict=True))}
        new = [pair for pair in pairs if pair not in known]
        if new and unseen == "error":
            self._refuse(new)
        codes = known | {pair: self.n_contexts + offset for offset, pair in enumerate(new)}
        return np.array([codes[pair] for pair in pairs], dtype=np.int64)[inverse]

    def extend(
        self,
        labels: _Codes,
        samples: _Codes | None = None,
        label_names: Sequence[Any] | None = None,
        sample_names: Sequence[Any] | None = None,
    ) -> Contexts:
        """Return these contexts followed by the new pairs of some cells; known codes stay what they are.

        Parameters
        ----------
        labels
            Label code of each cell, shape (cells,) or (cells, 1).
        samples
            Sample code of each cell, if contexts have samples.
        label_names
            Names of label codes with new ones appended; None keeps those of these contexts.
        sample_names
            Names of sample codes with new ones appended; None keeps those of these contexts.

        Raises
        ------
        DataError
            If a code has no name, or samples are given to contexts without (or the reverse).
        """
        label_texts = self.label_names if label_names is None else tuple(str(name) for name in label_names)
        sample_texts = self.sample_names if sample_names is None else tuple(str(name) for name in sample_names)
        if label_texts[: len(self.label_names)] != self.label_names:
            raise DataError("the names of the labels changed; append new ones and keep the known ones in place")
        if (sample_texts or ())[: len(self.sample_names or ())] != (self.sample_names or ()):
            raise DataError("the names of the samples changed; append new ones and keep the known ones in place")
        named = replace(self, label_names=label_texts, sample_names=sample_texts)
        pairs, _ = named._pairs(labels, samples)
        known = set(zip(self.label, self.sample, strict=True))
        new = [pair for pair in pairs if pair not in known]
        for label, sample in new:
            if not (0 <= label < len(label_texts)) or not (0 <= sample < len(sample_texts or ("",))):
                raise DataError(f"label code {label} or sample code {sample} has no name; pass the names of all codes")
        return replace(
            named,
            names=self.names + tuple(named._name(pair) for pair in new),
            label=self.label + tuple(label for label, _ in new),
            sample=self.sample + tuple(sample for _, sample in new),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the contexts as plain values that JSON can hold."""
        return {
            "names": list(self.names),
            "label": list(self.label),
            "sample": list(self.sample),
            "label_names": list(self.label_names),
            "sample_names": None if self.sample_names is None else list(self.sample_names),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Contexts:
        """Rebuild contexts from `to_dict`.

        Parameters
        ----------
        values
            What `to_dict` returned.
        """
        sample_names = values["sample_names"]
        return cls(
            tuple(values["names"]),
            tuple(values["label"]),
            tuple(values["sample"]),
            tuple(values["label_names"]),
            None if sample_names is None else tuple(sample_names),
        )

    def _pairs(self, labels: _Codes, samples: _Codes | None) -> tuple[list[tuple[int, int]], NDArray[np.intp]]:
        """Return the distinct (label, sample) pairs of some cells, sorted, and which one each cell has."""
        if (samples is None) != (self.sample_names is None):
            have, need = ("without", "pass") if samples is None else ("with", "leave out")
            raise DataError(f"cells come {have} samples, contexts the other way; {need} samples")
        label_codes = np.asarray(labels).reshape(-1).astype(np.int64)
        sample_codes = (
            np.zeros_like(label_codes) if samples is None else np.asarray(samples).reshape(-1).astype(np.int64)
        )
        if len(label_codes) != len(sample_codes):
            raise DataError(f"{len(label_codes)} labels but {len(sample_codes)} samples; give one of each per cell")
        pairs, inverse = np.unique(np.column_stack([label_codes, sample_codes]), axis=0, return_inverse=True)
        return [(int(label), int(sample)) for label, sample in pairs], inverse.reshape(-1)

    def _name(self, pair: tuple[int, int]) -> str:
        """Return the name of a pair, with the bare code where it has none."""
        label, sample = pair
        label_name = self.label_names[label] if 0 <= label < len(self.label_names) else f"label code {label}"
        if self.sample_names is None:
            return label_name
        sample_name = self.sample_names[sample] if 0 <= sample < len(self.sample_names) else f"sample code {sample}"
        return f"{label_name} | {sample_name}"

    def _refuse(self, new: list[tuple[int, int]]) -> None:
        names = [self._name(pair) for pair in new]
        raise UnknownConditionError(
            f"{counted(len(new), 'context')} not seen in training: {listing(names)}. Known: {listing(self.names)}. "
            f"Train with their control cells, or ask about known contexts.{did_you_mean(names[0], self.names)}"
        )
