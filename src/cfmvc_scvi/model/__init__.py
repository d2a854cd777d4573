"""The model class and what it is made of."""

from cfmvc_scvi.model.cfmvc import CFMVC

__all__ = ["CFMVC"]
