"""Saving and loading models without pickles: encoding of attributes, the directory on disk, the model's methods."""

from cfmvc_scvi.model.persistence.bundle import Bundle, read_bundle, write_bundle
from cfmvc_scvi.model.persistence.codec import decode, encode
from cfmvc_scvi.model.persistence.mixin import SafePersistenceMixin

__all__ = ["Bundle", "SafePersistenceMixin", "decode", "encode", "read_bundle", "write_bundle"]
