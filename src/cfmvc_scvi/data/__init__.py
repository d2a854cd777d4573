"""Data on their way into a model: conditions, doses, contexts, registration with scvi, and checks of the input."""

from __future__ import annotations

from cfmvc_scvi.data.checks import check_control, check_key, check_labels, check_min_cells, check_names, check_obsm
from cfmvc_scvi.data.contexts import Contexts
from cfmvc_scvi.data.counts import CountRows, check_counts, convert_counts, to_csr
from cfmvc_scvi.data.fields import CategoryField, MuDataCategoryField, MuDataPerturbationField, PerturbationField
from cfmvc_scvi.data.genes import match_genes
from cfmvc_scvi.data.h5ad_guard import assert_self_contained
from cfmvc_scvi.data.vocabulary import Vocabulary, condition_table

__all__ = [
    "CountRows",
    "CategoryField",
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
    "match_genes",
    "to_csr",
]
