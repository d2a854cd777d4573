"""Fields that register perturbations and categories of cells with scvi's data manager."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from rich.table import Table
from scvi.data.fields import BaseAnnDataField, CategoricalObsField, MuDataWrapper

from cfmvc_scvi._keys import COMBINATION_SEPARATOR, DESIGN_OBSM_KEY
from cfmvc_scvi.data._text import label_strings
from cfmvc_scvi.data.checks import check_control, check_labels
from cfmvc_scvi.data.embeddings import find_embeddings
from cfmvc_scvi.data.names import check_key, refuse_new_categories
from cfmvc_scvi.data.vocabulary import Vocabulary
from cfmvc_scvi.errors import DataError

__all__ = ["CategoryField", "MuDataCategoryField", "MuDataPerturbationField", "PerturbationField"]

_MOST_COLUMNS = 100  # of a dense design, which minibatches are read from faster

logger = logging.getLogger(__name__)


class PerturbationField(BaseAnnDataField):
    """Design matrix of the perturbations, from a column of labels and, if there is one, a column of doses.

    Reads `obs[perturbation_key]`, `obs[dose_key]` and the features (`find_embeddings`), which stay as they are; writes
    `obsm['_scvi_perturbation']`, float32 of shape (cells, perturbations), CSR where there are more than 100. The state
    registry holds plain values and one array: the vocabulary, the keys, and the features of perturbations
    (perturbations, features), a row of NaN where there are none.

    Parameters
    ----------
    registry_key
        Key of the design in a minibatch.
    perturbation_key
        Column of `obs` with the labels; None makes the field empty, and nothing is registered.
    control
        Label of unperturbed cells.
    dose_key
        Column of `obs` with the doses, in their own unit; None is dose 1 everywhere.
    separator
        What stands between the parts of a combination.
    embeddings_key
        Key of `uns` or `varm` with the features of perturbations, those without cells among them; None is no features.

    Raises
    ------
    DataError
        If there are features and no perturbation column.
    """

    VOCABULARY_KEY = "vocabulary"
    ORIGINAL_ATTR_KEY = "original_key"
    DOSE_ATTR_KEY = "dose_key"
    EMBEDDINGS_KEY = "embeddings"
    EMBEDDED_KEY = "embedded"

    def __init__(
        self,
        registry_key: str,
        perturbation_key: str | None,
        control: str = "control",
        dose_key: str | None = None,
        separator: str = COMBINATION_SEPARATOR,
        embeddings_key: str | None = None,
    ) -> None:
        super().__init__()
        if embeddings_key is not None and perturbation_key is None:
            raise DataError(
                f"{embeddings_key!r} describes perturbations, but no column names them; pass perturbation_key"
            )
        self._registry_key = registry_key
        self.perturbation_key = perturbation_key
        self.control = str(control).strip()
        self.dose_key = dose_key
        self.separator = separator
        self.embeddings_key = embeddings_key

    @property
    def registry_key(self) -> str:
        """Key of the design in a minibatch."""
        return self._registry_key

    @property
    def attr_name(self) -> str:
        """Attribute of the data that holds the design."""
        return "obsm"

    @property
    def attr_key(self) -> str:
        """Key of the design in that attribute."""
        return DESIGN_OBSM_KEY

    @property
    def is_empty(self) -> bool:
        """Whether there is no perturbation column."""
        return self.perturbation_key is None

    def validate_field(self, adata: AnnData) -> None:
        """Check that the columns exist and every cell has a label.

        Parameters
        ----------
        adata
            Annotated cells.

        Raises
        ------
        UnknownConditionError
            If a column is missing.
        DataError
            If labels are missing or of mixed types.
        """
        super().validate_field(adata)
        check_labels(adata.obs, str(self.perturbation_key), "perturbation")
        if self.dose_key is not None:
            check_key(self.dose_key, adata.obs.columns, "adata.obs")

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Build the vocabulary from the labels and write the design.

        Parameters
        ----------
        adata
            Annotated cells.

        Returns
        -------
        State registry.

        Raises
        ------
        UnknownConditionError
            If a column or the features are missing.
        DataError
            If labels are missing or malformed, there is no control cell or nothing but control, or a dose or a feature
            is invalid.
        """
        super().register_field(adata)
        labels = self._labels(adata)
        vocabulary = Vocabulary.from_labels(labels, self.control, self.separator)
        check_control(vocabulary.names(vocabulary.sparse_design(labels)), self.control)
        if not vocabulary.perturbations:
            raise DataError(
                f"obs[{self.perturbation_key!r}] has no label but the control {self.control!r}: there is no effect to "
                "learn. Add perturbed cells, or leave the perturbation key out"
            )
        features: dict[str, Any] = {}
        if self.embeddings_key is not None:
            frame = find_embeddings(adata, self.embeddings_key, vocabulary)
            vocabulary = vocabulary.extended(frame.index)
            features = {
                self.EMBEDDINGS_KEY: frame.reindex(list(vocabulary.perturbations)).to_numpy(),
                self.EMBEDDED_KEY: list(frame.index),
            }
        return self._write(adata, labels, vocabulary) | features

    def transfer_field(self, state_registry: dict[str, Any], adata_target: AnnData, **kwargs: Any) -> dict[str, Any]:
        """Write the design of new cells in the vocabulary of the registered ones.

        Parameters
        ----------
        state_registry
            What `register_field` returned for the registered cells.
        adata_target
            New cells; new combinations of known perturbations are welcome, and control cells may be absent.
        **kwargs
            scvi's options for categories. They do not apply: a vocabulary cannot grow after training.

        Returns
        -------
        State registry.

        Raises
        ------
        UnknownConditionError
            If a column is missing, or a part of a label is unknown.
        DataError
            If labels are missing or malformed, or a dose is invalid.
        """
        super().transfer_field(state_registry, adata_target, **kwargs)
        self.validate_field(adata_target)
        vocabulary = Vocabulary.from_dict(state_registry[self.VOCABULARY_KEY])
        features = {
            key: state_registry[key] for key in (self.EMBEDDINGS_KEY, self.EMBEDDED_KEY) if key in state_registry
        }
        return self._write(adata_target, self._labels(adata_target), vocabulary) | features

    def get_summary_stats(self, state_registry: dict[str, Any]) -> dict[str, int]:
        """Return the number of perturbations: columns of the design.

        Parameters
        ----------
        state_registry
            What `register_field` returned; empty for an empty field.
        """
        n = len(state_registry[self.VOCABULARY_KEY]["perturbations"]) if state_registry else 0
        return {"n_perturbations": n}

    def view_state_registry(self, state_registry: dict[str, Any]) -> Table | None:
        """Return a table of the perturbations and their columns in the design.

        Parameters
        ----------
        state_registry
            What `register_field` returned; empty for an empty field.
        """
        if not state_registry:
            return None
        vocabulary = Vocabulary.from_dict(state_registry[self.VOCABULARY_KEY])
        table = Table(title=f"{self.registry_key} State Registry")
        for heading in ("Source Location", "Perturbation", "Column"):
            table.add_column(heading, justify="center", overflow="fold")
        table.add_row(f"adata.obs['{state_registry[self.ORIGINAL_ATTR_KEY]}']", vocabulary.control, "none (control)")
        for position, name in enumerate(vocabulary.perturbations):
            table.add_row("", name, str(position))
        return table

    def _labels(self, adata: AnnData) -> pd.Series:
        return pd.Series(label_strings(adata.obs[self.perturbation_key]), index=adata.obs_names, dtype=object)

    def _write(self, adata: AnnData, labels: pd.Series, vocabulary: Vocabulary) -> dict[str, Any]:
        doses = None if self.dose_key is None else adata.obs[self.dose_key]
        design = vocabulary.sparse_design(labels, doses)
        adata.obsm[self.attr_key] = design if design.shape[1] > _MOST_COLUMNS else design.toarray()
        return {
            self.VOCABULARY_KEY: vocabulary.to_dict(),
            self.ORIGINAL_ATTR_KEY: self.perturbation_key,
            self.DOSE_ATTR_KEY: self.dose_key,
        }


class CategoryField(CategoricalObsField):
    """scvi's categorical column with clear errors, no rows for unused categories, and a complete check on transfer.

    It registers what `scvi.data.fields.CategoricalObsField` does, under the same names, and takes the same arguments.
    The original column stays as it is.
    """

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Register the categories that occur.

        Parameters
        ----------
        adata
            Annotated cells.

        Returns
        -------
        State registry.

        Raises
        ------
        UnknownConditionError
            If the column is missing.
        DataError
            If cells have no value, or values are of several types.
        """
        column = self._checked(adata)
        return self._write(adata, column, _observed(column))

    def transfer_field(
        self, state_registry: dict[str, Any], adata_target: AnnData, extend_categories: bool = False, **kwargs: Any
    ) -> dict[str, Any]:
        """Encode the categories of new cells as in the registered ones.

        Parameters
        ----------
        state_registry
            What `register_field` returned for the registered cells.
        adata_target
            New cells.
        extend_categories
            Number new categories onwards instead of refusing them.
        **kwargs
            Other options of scvi, which do not apply.

        Returns
        -------
        State registry.

        Raises
        ------
        UnknownConditionError
            If the column is missing, or a category is new and must not be.
        DataError
            If cells have no value, or values are of several types.
        """
        column = self._checked(adata_target)
        known = pd.Index(np.array(state_registry[self.CATEGORICAL_MAPPING_KEY]))
        new = pd.Index(_observed(column)).difference(known)
        if not extend_categories:
            refuse_new_categories(self._original_attr_key, new, known)
        return self._write(adata_target, column, known.append(new).to_numpy() if len(new) else known.to_numpy())

    def _checked(self, adata: AnnData) -> pd.Series:
        if self.is_default:
            self._setup_default_attr(adata)
        check_labels(adata.obs, self._original_attr_key, self.registry_key)
        return adata.obs[self._original_attr_key]

    def _write(self, adata: AnnData, column: pd.Series, categories: NDArray[Any]) -> dict[str, Any]:
        adata.obs[self.attr_key] = pd.Index(categories).get_indexer(pd.Index(np.asarray(column)))
        return {self.CATEGORICAL_MAPPING_KEY: categories, self.ORIGINAL_ATTR_KEY: self._original_attr_key}


def _observed(column: pd.Series) -> NDArray[Any]:
    """Return the categories that occur, in their order, as a plain numpy array."""
    categories = column.astype("category").cat.remove_unused_categories().cat.categories
    return (
        np.array(categories.tolist(), dtype=object) if categories.dtype.kind == "O" else categories.to_numpy(copy=True)
    )


MuDataPerturbationField = MuDataWrapper(PerturbationField)
MuDataCategoryField = MuDataWrapper(CategoryField)
