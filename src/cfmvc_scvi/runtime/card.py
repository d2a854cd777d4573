"""What an exported model is, in words: genes, perturbations, contexts, columns and versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from cfmvc_scvi.errors import CorruptModelError, ModelFileError

__all__ = ["FORMAT_VERSION", "Card", "Columns"]

FORMAT_VERSION = 1
_FORMAT = "cfmvc-scvi export"


@dataclass(frozen=True)
class Columns:
    """Columns of `obs` that the model reads of cells; None where it was set up without.

    Attributes
    ----------
    perturbation, dose, labels, batch, sample
        Names of columns.
    categories
        Categories of each categorical covariate, in the order of the codes.
    continuous
        Continuous covariates.
    """

    perturbation: str
    dose: str | None = None
    labels: str | None = None
    batch: str | None = None
    sample: str | None = None
    categories: dict[str, list[str]] = field(default_factory=dict)
    continuous: list[str] = field(default_factory=list)

    @property
    def required(self) -> list[str]:
        """Names of all columns that cells must have."""
        named = (self.perturbation, self.dose, self.labels, self.batch, self.sample)
        return [*(name for name in named if name is not None), *self.categories, *self.continuous]


@dataclass(frozen=True)
class Card:
    """What an exported model is.

    Attributes
    ----------
    genes
        Names, in the order of the networks' input.
    vocabulary
        As of `Vocabulary.to_dict`.
    columns
        What is read of cells beside counts.
    labels, batches, samples
        Names of the categories in the order of their codes; `samples` is None where none are registered.
    n_intrinsic, n_technical
        Dimensions of the latents.
    location, scale
        Of the flow's coordinates.
    source
        Where the paths of the flow start.
    solvers
        Methods of the ODE that were exported.
    allow_non_integer
        Whether counts may be fractions.
    versions
        Of the packages that made the export.
    """

    genes: list[str]
    vocabulary: dict[str, Any]
    columns: Columns
    labels: list[str]
    batches: list[str]
    samples: list[str] | None
    n_intrinsic: int
    n_technical: int
    location: list[float]
    scale: float
    source: Literal["control", "noise"]
    solvers: list[str]
    allow_non_integer: bool
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return {"format": _FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Card:
        """Rebuild a card from `to_dict`.

        Raises
        ------
        ModelFileError
            If this is another kind of file, or one of a newer format.
        CorruptModelError
            If entries are missing or unknown.
        """
        entries = dict(values)
        if entries.pop("format", None) != _FORMAT:
            raise ModelFileError(f"this is not an exported model: its format is not {_FORMAT!r}")
        version = entries.pop("format_version", None)
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise ModelFileError(
                f"the exported model has format version {version}, this package reads up to {FORMAT_VERSION}. It was "
                f"written by {entries.get('versions')}; upgrade cfmvc-scvi"
            )
        try:
            return cls(**{**entries, "columns": Columns(**entries["columns"])})
        except (KeyError, TypeError) as error:
            raise CorruptModelError(f"the card of the exported model is not as an export writes it: {error}") from error
