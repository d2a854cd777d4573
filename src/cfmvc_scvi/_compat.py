"""The one home of names that scvi-tools keeps private (checked with scvi-tools 1.4.2 and 1.5.1)."""

from __future__ import annotations

from typing import Any

import rich.pretty  # noqa: F401  # AnnDataManager.view_setup_method_args uses it and does not import it
import torch
from scvi.data._constants import _FIELD_REGISTRIES_KEY, _MODEL_NAME_KEY, _SETUP_ARGS_KEY, _SETUP_METHOD_NAME
from scvi.data._utils import _check_if_view, _get_adata_minify_type
from scvi.model._utils import parse_device_args, use_distributed_sampler
from scvi.model.base._save_load import _initialize_model, _validate_var_names
from scvi.module._constants import MODULE_KEYS

__all__ = [
    "FIELD_REGISTRIES_KEY",
    "MODEL_NAME_KEY",
    "MODULE_KEYS",
    "SETUP_ARGS_KEY",
    "SETUP_METHOD_KEY",
    "adata_minify_type",
    "initialize_model",
    "materialise_view",
    "single_device",
    "use_distributed_sampler",
    "validate_var_names",
]

FIELD_REGISTRIES_KEY: str = _FIELD_REGISTRIES_KEY
MODEL_NAME_KEY: str = _MODEL_NAME_KEY
SETUP_ARGS_KEY: str = _SETUP_ARGS_KEY
SETUP_METHOD_KEY: str = _SETUP_METHOD_NAME

validate_var_names = _validate_var_names
adata_minify_type = _get_adata_minify_type


def materialise_view(adata: Any) -> None:
    """Turn a view into data of its own, in place, with scvi's info line; the data it looked at stay as they are."""
    _check_if_view(adata, copy_if_view=True)


def initialize_model(cls: type, adata: Any, registry: dict[str, Any], init_params: dict[str, Any]) -> Any:
    """Construct a model from its saved constructor arguments.

    Parameters
    ----------
    cls
        Class of the model.
    adata
        The AnnData to attach, already set up for `cls`, or None for a model without data.
    registry
        Saved registry of the model.
    init_params
        Saved ``init_params_`` of the model.

    Returns
    -------
    An untrained instance of `cls`; nothing but the constructor has run.
    """
    return _initialize_model(cls, adata, registry, {"init_params_": init_params}, None)


def single_device(accelerator: str, device: int | str) -> torch.device:
    """Device that scvi-tools understands by this `accelerator` and `device`; raises ValueError on more than one."""
    return parse_device_args(
        accelerator=accelerator, devices=device, return_device="torch", validate_single_device=True
    )[2]
