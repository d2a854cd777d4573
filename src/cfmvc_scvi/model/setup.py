"""Registration of AnnData and MuData: which fields a CFMVC model reads, and the checks before they are registered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import pandas as pd
from anndata import AnnData
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager, fields
from scvi.data.fields import BaseAnnDataField, MuDataWrapper
from scvi.utils import setup_anndata_dsp

from cfmvc_scvi._compat import SETUP_ARGS_KEY, adata_minify_type, materialise_view
from cfmvc_scvi._keys import CFMVC_REGISTRY_KEYS
from cfmvc_scvi.data import (
    CategoryField,
    MuDataCategoryField,
    MuDataPerturbationField,
    PerturbationField,
    Vocabulary,
    check_control,
    check_counts,
    check_labels,
    check_min_cells,
    check_names,
    check_obsm,
    convert_counts,
)
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.model._base import ModelPart

if TYPE_CHECKING:
    from mudata import MuData

__all__ = ["SetupMixin", "cell_fields", "check_design"]

_FEW_CELLS = 10
_Column: TypeAlias = tuple[Any, str | None]  # an AnnData or MuData, and a column of its obs


class _CountsField(fields.LayerField):
    """Counts, looked at one by one when data are registered; scvi's own check draws a random sample."""

    def __init__(self, registry_key: str, layer: str | None, allow_non_integer: bool) -> None:
        super().__init__(registry_key, layer, is_count_data=False)
        self.allow_non_integer = allow_non_integer

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Check and convert the counts of the data that a model is made for."""
        return self._register(adata, training=True)

    def transfer_field(self, state_registry: dict[str, Any], adata_target: AnnData, **kwargs: Any) -> dict[str, Any]:
        """Check and convert the counts of new data."""
        n_genes = state_registry[self.N_VARS_KEY]
        if adata_target.n_vars != n_genes:
            raise DataError(f"The data have {adata_target.n_vars} genes, the model has {n_genes}.")
        return self._register(adata_target, training=False)

    def _register(self, adata: AnnData, training: bool) -> dict[str, Any]:
        if adata_minify_type(adata) is None:
            check_counts(adata, self.attr_key, training=training, allow_non_integer=self.allow_non_integer)
            convert_counts(adata, self.attr_key)
        return super().register_field(adata)


_MuDataCountsField = MuDataWrapper(_CountsField)


class SetupMixin(ModelPart):
    """`setup_anndata` and `setup_mudata` of `CFMVC`."""

    @classmethod
    @setup_anndata_dsp.dedent
    def setup_anndata(
        cls,
        adata: AnnData,
        layer: str | None = None,
        batch_key: str | None = None,
        labels_key: str | None = None,
        perturbation_key: str | None = None,
        control_category: str = "control",
        dose_key: str | None = None,
        spatial_key: str | None = None,
        sample_key: str | None = None,
        size_factor_key: str | None = None,
        categorical_covariate_keys: Sequence[str] | None = None,
        continuous_covariate_keys: Sequence[str] | None = None,
        allow_non_integer: bool = False,
        perturbation_embeddings_key: str | None = None,
        **kwargs: Any,
    ) -> None:
        """%(summary)s.

        Every key but the counts is optional; without a perturbation key the model is an scVI with two latent blocks.

        Parameters
        ----------
        %(param_adata)s
        %(param_layer)s
        %(param_batch_key)s
            Technical: the decoder removes it.
        %(param_labels_key)s
            With `sample_key` these form the contexts within which a perturbation has one mean effect.
        perturbation_key
            Column of `adata.obs` with the perturbation of each cell; combinations are written ``'A+B'``.
        control_category
            Label of the unperturbed cells in that column.
        dose_key
            Column of `adata.obs` with the dose of each cell (>= 0, its own unit); ignored for control cells.
        spatial_key
            Key of `adata.obsm` with coordinates; the neighbourhood of a cell becomes part of its context.
        sample_key
            Column of `adata.obs` with the biological replicate (donor, patient), which may respond in its own way.
        %(param_size_factor_key)s
        %(param_cat_cov_keys)s
        %(param_cont_cov_keys)s
        allow_non_integer
            Accept counts that are not integers (corrected for ambient RNA, say).
        perturbation_embeddings_key
            Key of features of single perturbations: what makes perturbations without cells predictable, which are named
            there like the others (see `pp.gene_embeddings`). In `adata.uns`, a DataFrame with perturbations in rows or
            a mapping of each to its features, where NaN alone names a perturbation of which nothing is known: the
            prediction is then what others lead to expect. Or in `adata.varm`, features of the genes that perturbations
            are named after: every gene with features can then be asked for, and has a column of the design and weights
            in the flow, so make the rows NaN of those that nobody will ask for.

        Raises
        ------
        DataError
            If the counts, labels, doses or coordinates cannot be used; the message names the cells and the remedy.
        UnknownConditionError
            If a key does not exist, or (for new data of a trained model) a category or perturbation is unknown.
        """
        setup_method_args = cls._get_setup_method_args(**locals())
        minified = adata_minify_type(adata)
        is_query = kwargs.get("source_registry") is not None
        materialise_view(adata)
        if minified is None:
            check_names(adata)
        if not is_query:
            check_design((adata, perturbation_key), control_category, [(adata, labels_key), (adata, sample_key)])
        if spatial_key is not None:
            check_obsm(adata, spatial_key)
        counts = _CountsField(REGISTRY_KEYS.X_KEY, layer, allow_non_integer)
        anndata_fields = cell_fields(counts, setup_method_args[SETUP_ARGS_KEY])
        if minified is not None:
            anndata_fields += cls._get_fields_for_adata_minification(minified)
        manager = AnnDataManager(fields=anndata_fields, setup_method_args=setup_method_args)
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

    @classmethod
    @setup_anndata_dsp.dedent
    def setup_mudata(
        cls,
        mdata: MuData,
        rna_layer: str | None = None,
        batch_key: str | None = None,
        labels_key: str | None = None,
        perturbation_key: str | None = None,
        control_category: str = "control",
        dose_key: str | None = None,
        spatial_key: str | None = None,
        sample_key: str | None = None,
        size_factor_key: str | None = None,
        categorical_covariate_keys: Sequence[str] | None = None,
        continuous_covariate_keys: Sequence[str] | None = None,
        modalities: dict[str, str] | None = None,
        allow_non_integer: bool = False,
        perturbation_embeddings_key: str | None = None,
        **kwargs: Any,
    ) -> None:
        """%(summary_mdata)s, for its RNA modality; other modalities are carried along, untouched.

        Predictions are of the RNA modality; with `key_added`, and by the functions of `tl`, they are written into it.

        Parameters
        ----------
        %(param_mdata)s
        rna_layer
            Layer of the RNA modality with the counts; None is its X.
        %(param_batch_key)s
        %(param_labels_key)s
        perturbation_key, control_category, dose_key, sample_key
            As in `setup_anndata`.
        spatial_key
            Key of `mdata.obsm` with coordinates, or of `obsm` of the RNA modality if `modalities` says so.
        %(param_size_factor_key)s
        %(param_cat_cov_keys)s
        %(param_cont_cov_keys)s
        %(param_modalities)s
            ``rna_layer`` names the modality of the counts; the key of any other argument names that of its column,
            which otherwise is a column of `mdata.obs` (or, for ``spatial_key``, a key of `mdata.obsm`).
        allow_non_integer
            Accept counts that are not integers.
        perturbation_embeddings_key
            As in `setup_anndata`; a key of `uns` or `varm` of the data that hold the perturbation column.

        Raises
        ------
        DataError, UnknownConditionError
            As in `setup_anndata`.
        """
        setup_method_args = cls._get_setup_method_args(**locals())
        if modalities is None or "rna_layer" not in modalities:
            raise ValueError(
                f"Name the modality with the counts: modalities={{'rna_layer': {next(iter(mdata.mod), 'rna')!r}}}."
            )
        where = cls._create_modalities_attr_dict(modalities, setup_method_args)
        rna = mdata.mod[where.rna_layer]
        is_query = kwargs.get("source_registry") is not None
        check_names(rna)
        _check_aligned(mdata, rna, where.rna_layer)
        if spatial_key is not None:
            if where.spatial_key not in (None, where.rna_layer):
                raise DataError(
                    f"Coordinates cannot be those of modality {where.spatial_key!r}; put them into obsm of the data, "
                    f"or of modality {where.rna_layer!r}."
                )
            check_obsm(mdata if where.spatial_key is None else rna, spatial_key)
        if not is_query:
            columns = [
                (mdata if modality is None else mdata.mod[modality], key)
                for modality, key in (
                    (where.perturbation_key, perturbation_key),
                    (where.labels_key, labels_key),
                    (where.sample_key, sample_key),
                )
            ]
            check_design(columns[0], control_category, columns[1:])
        keys = CFMVC_REGISTRY_KEYS
        mudata_fields = [
            _MuDataCountsField(
                REGISTRY_KEYS.X_KEY, rna_layer, allow_non_integer, mod_key=where.rna_layer, mod_required=True
            ),
            MuDataCategoryField(REGISTRY_KEYS.BATCH_KEY, batch_key, mod_key=where.batch_key),
            MuDataCategoryField(REGISTRY_KEYS.LABELS_KEY, labels_key, mod_key=where.labels_key),
            MuDataCategoryField(keys.SAMPLE_KEY, sample_key, mod_key=where.sample_key),
            MuDataPerturbationField(
                keys.PERTURBATION_KEY,
                perturbation_key,
                control_category,
                dose_key,
                embeddings_key=perturbation_embeddings_key,
                mod_key=where.perturbation_key,
            ),
            fields.MuDataNumericalObsField(
                REGISTRY_KEYS.SIZE_FACTOR_KEY, size_factor_key, mod_key=where.size_factor_key, required=False
            ),
            fields.MuDataCategoricalJointObsField(
                REGISTRY_KEYS.CAT_COVS_KEY, categorical_covariate_keys, mod_key=where.categorical_covariate_keys
            ),
            fields.MuDataNumericalJointObsField(
                REGISTRY_KEYS.CONT_COVS_KEY, continuous_covariate_keys, mod_key=where.continuous_covariate_keys
            ),
        ]
        if spatial_key is not None:
            mudata_fields.append(fields.MuDataObsmField(keys.SPATIAL_KEY, spatial_key, mod_key=where.spatial_key))
        manager = AnnDataManager(fields=mudata_fields, setup_method_args=setup_method_args)
        manager.register_fields(mdata, **kwargs)
        cls.register_manager(manager)


def cell_fields(counts: BaseAnnDataField, setup: Mapping[str, Any]) -> list[BaseAnnDataField]:
    """Return the fields of an AnnData: that of its counts, and those that these arguments of `setup_anndata` name."""
    keys = CFMVC_REGISTRY_KEYS
    perturbation = PerturbationField(
        keys.PERTURBATION_KEY,
        setup["perturbation_key"],
        setup["control_category"],
        setup["dose_key"],
        embeddings_key=setup["perturbation_embeddings_key"],
    )
    found: list[BaseAnnDataField] = [
        counts,
        CategoryField(REGISTRY_KEYS.BATCH_KEY, setup["batch_key"]),
        CategoryField(REGISTRY_KEYS.LABELS_KEY, setup["labels_key"]),
        CategoryField(keys.SAMPLE_KEY, setup["sample_key"]),
        perturbation,
        fields.NumericalObsField(REGISTRY_KEYS.SIZE_FACTOR_KEY, setup["size_factor_key"], required=False),
        fields.CategoricalJointObsField(REGISTRY_KEYS.CAT_COVS_KEY, setup["categorical_covariate_keys"]),
        fields.NumericalJointObsField(REGISTRY_KEYS.CONT_COVS_KEY, setup["continuous_covariate_keys"]),
    ]
    if setup["spatial_key"] is not None:
        found.append(fields.ObsmField(keys.SPATIAL_KEY, setup["spatial_key"]))
    return found


def _check_aligned(mdata: MuData, rna: AnnData, modality: str) -> None:
    """Refuse cells without counts: scvi-tools would give those of other cells to them."""
    missing = mdata.obs_names.difference(rna.obs_names)
    if len(missing):
        raise DataError(
            f"{len(missing)} of {mdata.n_obs} cells are not in modality {modality!r}, first {missing[0]!r}. Subset the "
            f"data to its cells: mdata[mdata.mod[{modality!r}].obs_names].copy()."
        )
    if not mdata.obs_names.equals(rna.obs_names):
        raise DataError(
            f"Modality {modality!r} has the cells in another order. Make the data again: MuData({{name: part["
            f"mdata.mod[{modality!r}].obs_names] for name, part in mdata.mod.items()}})."
        )


def check_design(perturbation: _Column, control: str, groups: Sequence[_Column]) -> None:
    """Check control cells per context, and name perturbations with few cells."""
    data, key = perturbation
    if key is None:
        return
    labels = check_labels(data.obs, key, "perturbation")
    vocabulary = Vocabulary.from_labels(labels, control)
    names = vocabulary.names(vocabulary.sparse_design(labels))
    columns = [check_labels(data.obs, key, "context") for data, key in groups if key is not None]
    contexts = columns[0].str.cat(columns[1:], sep=" | ") if columns else None
    check_control(names, vocabulary.control, contexts)
    check_min_cells(pd.Series(names, index=data.obs_names), _FEW_CELLS)
