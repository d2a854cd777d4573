"""Before a model: which genes, and which cells are held out. Nothing here looks at cells that are held out."""

from __future__ import annotations

from cfmvc_scvi.pp.genes import select_genes
from cfmvc_scvi.pp.holdout import HoldOut, leave_out

__all__ = ["HoldOut", "leave_out", "select_genes"]
