"""What the mixins of `CFMVC` are mixed into, for type checkers; at run time they stand alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["ModelPart"]

if TYPE_CHECKING:
    from scvi.model.base import BaseMinifiedModeModelClass, VAEMixin

    class ModelPart(VAEMixin, BaseMinifiedModeModelClass):
        """The parts of scvi's model that the mixins call."""
else:
    ModelPart = object
