"""Saving and loading models without pickles: encoding of attributes, the directory on disk, the model's methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfmvc_scvi._lazy import on_first_use

if TYPE_CHECKING:
    from cfmvc_scvi.model.persistence.bundle import Bundle, read_bundle, write_bundle
    from cfmvc_scvi.model.persistence.codec import decode, encode
    from cfmvc_scvi.model.persistence.mixin import SafePersistenceMixin

__all__ = ["Bundle", "SafePersistenceMixin", "decode", "encode", "read_bundle", "write_bundle"]

# these files need torch and scvi-tools; manifest and replacement of a directory do not
__getattr__ = on_first_use(
    __name__,
    {
        "bundle": ["Bundle", "read_bundle", "write_bundle"],
        "codec": ["decode", "encode"],
        "mixin": ["SafePersistenceMixin"],
    },
)
