"""Data on their way into a model: conditions, doses, contexts, registration with scvi, and checks of the input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfmvc_scvi._lazy import on_first_use
from cfmvc_scvi.data.contexts import Contexts
from cfmvc_scvi.data.counts import CountRows, check_counts, convert_counts, to_csr
from cfmvc_scvi.data.names import check_key, check_names, gene_positions, refuse_new_categories, take_genes
from cfmvc_scvi.data.vocabulary import Vocabulary, condition_table

if TYPE_CHECKING:
    from cfmvc_scvi.data.checks import check_control, check_labels, check_min_cells, check_obsm
    from cfmvc_scvi.data.collection import (
        Collection,
        CollectionCounts,
        load_requests,
        open_collection,
        require_annbatch,
    )
    from cfmvc_scvi.data.fields import CategoryField, MuDataCategoryField, MuDataPerturbationField, PerturbationField
    from cfmvc_scvi.data.genes import match_genes, match_modality
    from cfmvc_scvi.data.h5ad_guard import assert_self_contained

__all__ = [
    "CountRows",
    "CategoryField",
    "Collection",
    "CollectionCounts",
    "Contexts",
    "MuDataCategoryField",
    "MuDataPerturbationField",
    "PerturbationField",
    "Vocabulary",
    "assert_self_contained",
    "check_control",
    "check_counts",
    "check_key",
    "check_labels",
    "check_min_cells",
    "check_names",
    "check_obsm",
    "condition_table",
    "convert_counts",
    "gene_positions",
    "load_requests",
    "match_genes",
    "match_modality",
    "open_collection",
    "refuse_new_categories",
    "require_annbatch",
    "take_genes",
    "to_csr",
]

# these files need anndata, pandas or scvi-tools, which an exported model does without
__getattr__ = on_first_use(
    __name__,
    {
        "checks": ["check_control", "check_labels", "check_min_cells", "check_obsm"],
        "collection": [
            "Collection",
            "CollectionCounts",
            "load_requests",
            "open_collection",
            "require_annbatch",
        ],
        "fields": ["CategoryField", "MuDataCategoryField", "MuDataPerturbationField", "PerturbationField"],
        "genes": ["match_genes", "match_modality"],
        "h5ad_guard": ["assert_self_contained"],
    },
)
