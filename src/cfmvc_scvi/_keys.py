"""Names that rooms share: registry keys, reserved columns, and how combinations are written."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["CFMVC_REGISTRY_KEYS", "COMBINATION_SEPARATOR", "DESIGN_OBSM_KEY"]


class _RegistryKeys(NamedTuple):
    """Keys of a minibatch, beside those of `scvi.REGISTRY_KEYS`.

    `PERTURBATION_KEY` is the design matrix (cells, perturbations), with doses as weights. `SAMPLE_KEY` is scvi's own
    name, so that its data modules find it.
    """

    PERTURBATION_KEY: str = "perturbation"
    SAMPLE_KEY: str = "sample"
    SPATIAL_KEY: str = "spatial"


CFMVC_REGISTRY_KEYS = _RegistryKeys()

COMBINATION_SEPARATOR = "+"
DESIGN_OBSM_KEY = "_scvi_perturbation"
