"""Before a model: which genes, what is known of targets, which cells are held out. Nothing here looks at the latter."""

from __future__ import annotations

from cfmvc_scvi.pp.embeddings import gene_embeddings
from cfmvc_scvi.pp.features import drug_fingerprints, gene_set_embeddings
from cfmvc_scvi.pp.genes import select_genes
from cfmvc_scvi.pp.holdout import HoldOut, leave_out

__all__ = ["HoldOut", "drug_fingerprints", "gene_embeddings", "gene_set_embeddings", "leave_out", "select_genes"]
