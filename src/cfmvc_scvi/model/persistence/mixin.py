"""`save` and `load` of scvi-tools with files that execute nothing when they are read."""

from __future__ import annotations

import inspect
import os
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import anndata
import mudata
from anndata import AnnData
from mudata import MuData
from scipy.sparse import issparse
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager

from cfmvc_scvi import _compat
from cfmvc_scvi.data.h5ad_guard import assert_self_contained
from cfmvc_scvi.errors import CFMVCWarning, ModelFileError, UnsupportedError
from cfmvc_scvi.model.persistence.bundle import ADATA_FILE, MDATA_FILE, Bundle, read_bundle, write_bundle

if TYPE_CHECKING:
    import pandas as pd
    from scvi.model.base import ArchesMixin, BaseModelClass

    class _ScviModel(ArchesMixin, BaseModelClass):
        """What this mixin is mixed into."""
else:
    _ScviModel = object

__all__ = ["SafePersistenceMixin"]

_SETUP_METHODS = ("setup_anndata", "setup_mudata")


class SafePersistenceMixin(_ScviModel):
    """Saves a scvi-tools model as safetensors and JSON; stands before all base classes of scvi-tools.

    What is saved: the module's weights and buffers, the attributes whose names end in ``"_"`` (all of them set in
    ``__init__``, or `load` refuses them as unknown), the gene names, what `_extra_state` returns, and on request the
    data. What `load` can run is the constructor and ``setup_anndata`` or ``setup_mudata`` of the class, with saved
    arguments.
    """

    @classmethod
    def _match_genes(cls, data: AnnData | MuData, var_names: Any, registry: dict[str, Any]) -> AnnData | MuData:
        """Bring data in line with the genes of a saved model, before they are set up. For subclasses.

        Here as in scvi-tools: the data are returned as they are, with a warning if the genes differ.
        """
        _compat.validate_var_names(data, var_names)
        return data

    def _extra_state(self) -> dict[str, Any]:
        """State to save beside the attributes: plain Python values, numpy arrays, DataFrames. For subclasses."""
        return {}

    def _load_extra_state(self, state: dict[str, Any]) -> None:
        """Take over a non-empty `_extra_state`, before the weights are loaded. For subclasses."""
        raise ModelFileError(f"{type(self).__name__} has no use for the saved state: {', '.join(sorted(state))}")

    def save(
        self,
        dir_path: str | os.PathLike[str],
        prefix: str | None = None,
        overwrite: bool = False,
        save_anndata: bool = False,
        save_kwargs: dict[str, Any] | None = None,
        legacy_mudata_format: bool = False,
        datamodule: Any = None,
        **anndata_write_kwargs: Any,
    ) -> None:
        """Save the model as a directory; a crash leaves the old directory or the new one, never a mixture.

        The state of optimizers is not saved.

        Parameters
        ----------
        dir_path
            Directory of the model.
        prefix
            Name of a sub-directory of `dir_path`, so that several models share one directory.
        overwrite
            Replace the model that stands there, together with data that were saved with it. A directory with other
            files is never overwritten.
        save_anndata
            Save the data too, as ``adata.h5ad`` or ``mdata.h5mu``.
        save_kwargs, legacy_mudata_format, datamodule
            Arguments of scvi-tools that have no meaning here; refused unless they have their defaults.
        anndata_write_kwargs
            Passed to `anndata.io.write_h5ad` or `mudata.write_h5mu`.

        Raises
        ------
        ModelFileError
            If the directory may not be written, or an attribute has a type that is not supported.
        UnsupportedError
            If an argument is refused, or the model was not set up with an AnnData or a MuData.
        """
        _refuse(save_kwargs=save_kwargs, legacy_mudata_format=legacy_mudata_format, datamodule=datamodule)
        _check_setup_method(self.registry)
        if save_anndata and self.adata is None:
            raise UnsupportedError("save_anndata=True needs a model with data; this model has none")

        def write_data(path: Path) -> None:
            write = mudata.write_h5mu if isinstance(self.adata, MuData) else anndata.io.write_h5ad
            write(path, self.adata, **anndata_write_kwargs)

        data_file = MDATA_FILE if isinstance(self.adata, MuData) else ADATA_FILE
        with_data = (data_file, write_data) if save_anndata else None
        write_bundle(_bundle_path(dir_path, prefix), self._bundle(), overwrite=overwrite, write_data=with_data)

    def _bundle(self) -> Bundle:
        """Return what `save` writes of this model."""
        return Bundle(
            class_name=type(self).__name__,
            state_dict=self.module.state_dict(),
            attributes={name: value for name, value in vars(self).items() if name.endswith("_")},
            var_names=self.get_var_names(),
            extras=self._extra_state(),
        )

    def _adopt(self, bundle: Bundle) -> None:
        """Take over weights, attributes and extra state of a saved model that was made in the same way."""
        _check_class(type(self), bundle, self.registry, [])
        _load_weights(self, bundle)
        made_with = ("registry_", "init_params_")
        _set_attributes(self, {k: v for k, v in bundle.attributes.items() if k not in made_with}, bundle)
        if bundle.extras:
            self._load_extra_state(bundle.extras)

    @classmethod
    def load(
        cls,
        dir_path: str | os.PathLike[str],
        adata: AnnData | MuData | bool | None = None,
        accelerator: str = "auto",
        device: int | str = "auto",
        prefix: str | None = None,
        backup_url: str | None = None,
        datamodule: Any = None,
        allowed_classes_names_list: list[str] | None = None,
        *,
        trust_pickle: bool = False,
    ) -> Self:
        """Load a saved model.

        Parameters
        ----------
        dir_path
            Directory of the model.
        adata
            Data with the columns that the model was set up with; it is set up here. None: the data that were saved
            with the model, if any. False: no data; they can be given to the methods of the model later.
        accelerator, device
            Where the model goes, in the words of lightning.
        prefix
            The `prefix` of `save`.
        backup_url, datamodule
            Arguments of scvi-tools that have no meaning here; refused unless they are None.
        allowed_classes_names_list
            Names of further classes whose files are accepted.
        trust_pickle
            Also read the ``model.pt`` of plain scvi-tools, which runs whatever code its author put there.

        Returns
        -------
        The model, in eval mode.

        Raises
        ------
        CorruptModelError
            If a file is missing, truncated or altered.
        UnsafeFileError
            If reading would run code (a pickle) or open other files (links in the saved AnnData).
        ModelFileError
            If the model is of another class, of a newer format, or has attributes that this class does not know.
        UnsupportedError
            If an argument is refused.
        """
        _refuse(backup_url=backup_url, datamodule=datamodule)
        target = _compat.single_device(accelerator, device)
        bundle = read_bundle(_bundle_path(dir_path, prefix), trust_pickle=trust_pickle)
        attributes = dict(bundle.attributes)
        if missing := sorted({"registry_", "init_params_"} - attributes.keys()):
            raise ModelFileError(f"'{dir_path}' is not the model of an AnnData: {', '.join(missing)} missing")
        registry, init_params = attributes.pop("registry_"), attributes.pop("init_params_")
        _check_class(cls, bundle, registry, allowed_classes_names_list or [])
        data = _saved_data(bundle) if adata is None else adata
        if data is False:
            data = None
        else:
            _check_not_emptied(data, registry)
            data = cls._match_genes(data, bundle.var_names, registry)
            setup = getattr(cls, _check_setup_method(registry))
            setup(data, source_registry=registry, **registry[_compat.SETUP_ARGS_KEY])
        _check_init_params(cls, init_params, bundle)
        model = _compat.initialize_model(cls, data, registry, init_params)
        _set_attributes(model, attributes, bundle)
        model.module.on_load(model, pyro_param_store=None)
        if bundle.extras:
            model._load_extra_state(bundle.extras)
        _load_weights(model, bundle)
        model.to_device(target)
        model.module.eval()
        if data is not None:
            model._validate_anndata(data)
        return model

    def restore_weights(self, dir_path: str | os.PathLike[str], prefix: str | None = None) -> None:
        """Give this model the weights of a saved one of the same shape, and nothing else of it."""
        _load_weights(self, read_bundle(_bundle_path(dir_path, prefix)))

    @staticmethod
    def load_registry(
        dir_path: str | os.PathLike[str], prefix: str | None = None, *, trust_pickle: bool = False
    ) -> dict[str, Any]:
        """Registry of a saved model; parameters and errors as in `load`."""
        return read_bundle(_bundle_path(dir_path, prefix), trust_pickle=trust_pickle).attributes["registry_"]

    @staticmethod
    def view_setup_args(dir_path: str | os.PathLike[str], prefix: str | None = None) -> None:
        """Show the arguments with which a saved model's data were set up."""
        AnnDataManager.view_setup_method_args(SafePersistenceMixin.load_registry(dir_path, prefix))

    @classmethod
    def convert_legacy_save(cls, *args: Any, **kwargs: Any) -> None:
        """Refused: there are no saves of this model from before scvi-tools 0.15, and converting them runs pickles."""
        raise UnsupportedError(f"{cls.__name__} has no saves from before scvi-tools 0.15 that could be converted")

    @classmethod
    def load_query_data(
        cls,
        adata: AnnData | None = None,
        reference_model: str | os.PathLike[str] | SafePersistenceMixin | None = None,
        *args: Any,
        trust_pickle: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Map query data onto a reference model (scArches); arguments as in scvi-tools.

        The query model also takes over `_extra_state` of the reference, as it does its attributes.

        Parameters
        ----------
        adata
            Query data.
        reference_model
            Reference, or the directory it was saved to.
        args, kwargs
            Further arguments of `scvi.model.base.ArchesMixin.load_query_data`.
        trust_pickle
            As in `load`.

        Returns
        -------
        The query model, not trained yet.
        """
        reference = cls._as_model(reference_model, trust_pickle)
        model = super().load_query_data(adata, _named_by_modality(reference, adata), *args, **kwargs)
        if isinstance(reference, SafePersistenceMixin) and (state := reference._extra_state()):
            model._load_extra_state(state)
        return model

    @classmethod
    def prepare_query_anndata(
        cls,
        adata: AnnData,
        reference_model: str | os.PathLike[str] | SafePersistenceMixin,
        return_reference_var_names: bool = False,
        inplace: bool = True,
    ) -> AnnData | pd.Index | None:
        """Pad and sort the genes of query data as in scvi-tools; `reference_model` is a model or its directory."""
        reference = cls._as_model(reference_model)
        return super().prepare_query_anndata(adata, reference, return_reference_var_names, inplace)

    @classmethod
    def prepare_query_mudata(
        cls,
        mdata: MuData,
        reference_model: str | os.PathLike[str] | SafePersistenceMixin,
        return_reference_var_names: bool = False,
        inplace: bool = True,
    ) -> MuData | dict[str, pd.Index] | None:
        """Pad and sort the genes of query data as in scvi-tools; `reference_model` is a model or its directory."""
        reference = cls._as_model(reference_model)
        return super().prepare_query_mudata(mdata, reference, return_reference_var_names, inplace)

    @classmethod
    def _as_model(cls, reference_model: Any, trust_pickle: bool = False) -> Any:
        if isinstance(reference_model, str | os.PathLike):
            return cls.load(reference_model, adata=False, accelerator="cpu", trust_pickle=trust_pickle)
        return reference_model


def _named_by_modality(reference: Any, data: Any) -> Any:
    """Return a reference whose genes are named by modality, as scvi-tools asks of one that a MuData is mapped onto.

    A model of one modality names the genes of that one, and has matched them; the other modalities are not read.
    """
    if not isinstance(data, MuData) or reference is None or isinstance(reference.get_var_names(), dict):
        return reference
    names = {name: part.var_names.to_numpy() for name, part in data.mod.items()}
    return SimpleNamespace(
        module=reference.module,
        get_var_names=lambda: names,
        _get_user_attributes=reference._get_user_attributes,
    )


def _refuse(**arguments: Any) -> None:
    if given := [name for name, value in arguments.items() if value]:
        raise UnsupportedError(f"not supported by this model's files, leave it out: {', '.join(given)}")


def _bundle_path(dir_path: str | os.PathLike[str], prefix: str | None) -> Path:
    if not prefix:
        return Path(dir_path)
    if Path(prefix).name != prefix or prefix.startswith("."):
        raise ModelFileError(f"prefix {prefix!r} is not a plain name")
    return Path(dir_path) / prefix


def _check_setup_method(registry: dict[str, Any]) -> str:
    """Name of the method that set the data up, which must be one of two, whatever a file says."""
    method = registry.get(_compat.SETUP_METHOD_KEY, _SETUP_METHODS[0])
    if method not in _SETUP_METHODS:
        raise UnsupportedError(f"models set up with {method!r} are not saved or loaded, only {_SETUP_METHODS}")
    return method


def _check_class(cls: type, bundle: Bundle, registry: dict[str, Any], allowed: list[str]) -> None:
    names = {bundle.class_name, registry.get(_compat.MODEL_NAME_KEY, bundle.class_name)}
    if other := sorted(names - {cls.__name__, *allowed}):
        raise ModelFileError(
            f"this is a model of class {', '.join(other)}, not {cls.__name__}. Load it with that class, or name it in "
            "allowed_classes_names_list"
        )
    _check_setup_method(registry)


def _check_init_params(cls: type, init_params: dict[str, Any], bundle: Bundle) -> None:
    parameters = inspect.signature(cls).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        _refuse_unknown(
            "constructor arguments", init_params.get("non_kwargs", {}).keys() - parameters.keys(), cls, bundle
        )


def _set_attributes(model: SafePersistenceMixin, attributes: dict[str, Any], bundle: Bundle) -> None:
    _refuse_unknown("attributes", attributes.keys() - vars(model).keys(), type(model), bundle)
    for name, value in attributes.items():
        setattr(model, name, value)


def _refuse_unknown(what: str, unknown: set[str], cls: type, bundle: Bundle) -> None:
    if unknown:
        raise ModelFileError(
            f"the saved model has {len(unknown)} {what} that {cls.__name__} does not know: "
            f"{', '.join(sorted(unknown)[:5])}. It was saved with {bundle.versions or 'scvi-tools'}; upgrade to that"
        )


def _saved_data(bundle: Bundle) -> Any:
    """AnnData or MuData of the bundle; False if there is none, with a warning."""
    if bundle.data_file is None:
        warnings.warn(
            "no data were passed and none were saved with the model: it is loaded without data",
            CFMVCWarning,
            stacklevel=3,
        )
        return False
    assert_self_contained(bundle.data_file)
    read = mudata.read_h5mu if bundle.data_file.name == MDATA_FILE else anndata.io.read_h5ad
    return read(bundle.data_file)


def _check_not_emptied(data: AnnData | MuData, registry: dict[str, Any]) -> None:
    """Minified data have no counts: without latent parameters they can only go with a model that was saved minified."""
    minified = REGISTRY_KEYS.MINIFY_TYPE_KEY in registry[_compat.FIELD_REGISTRIES_KEY]
    part = next(iter(data.mod.values())) if isinstance(data, MuData) else data
    if issparse(part.X) and part.X.nnz == 0 and not minified and "_scvi_latent_qzm" not in part.obsm:
        raise ModelFileError(
            "the data have no counts (they look minified), but the model was saved with counts. Pass the original data"
        )


def _load_weights(model: SafePersistenceMixin, bundle: Bundle) -> None:
    try:
        model.module.load_state_dict(bundle.state_dict)
    except RuntimeError as error:  # a missing, unknown or differently shaped tensor
        problems = [line.strip() for line in str(error).splitlines()[1:]]
        raise ModelFileError(
            f"the saved weights do not fit this {type(model).__name__}: {len(problems)} problems, the first is: "
            f"{problems[0]}. Load the model with the version that it was saved with: {bundle.versions}"
        ) from error
