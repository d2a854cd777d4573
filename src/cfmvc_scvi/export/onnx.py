"""Writing a trained model as an exported one."""

from __future__ import annotations

import copy
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from scvi import REGISTRY_KEYS

from cfmvc_scvi._keys import CFMVC_REGISTRY_KEYS
from cfmvc_scvi._optional import require_extra
from cfmvc_scvi.errors import DataError, UnsupportedError
from cfmvc_scvi.export.golden import golden_question
from cfmvc_scvi.export.graphs import decoder_graph, encoder_graph, field_graph
from cfmvc_scvi.flow import Method
from cfmvc_scvi.model import CFMVC
from cfmvc_scvi.model.torch_networks import TorchNetworks
from cfmvc_scvi.runtime import Bundle, Card, Columns
from cfmvc_scvi.runtime.files import write_export
from cfmvc_scvi.runtime.onnx_networks import DECODER_FILE, ENCODER_FILE, field_file, onnx_runtime

__all__ = ["as_bundle", "to_onnx"]

_PACKAGES = ("cfmvc-scvi", "scvi-tools", "torch", "onnx", "onnxscript", "onnxruntime", "numpy")
_READ = {
    CFMVC_REGISTRY_KEYS.BATCH_KEY,
    CFMVC_REGISTRY_KEYS.LABELS_KEY,
    CFMVC_REGISTRY_KEYS.CAT_COVS_KEY,
    CFMVC_REGISTRY_KEYS.CONT_COVS_KEY,
}


def to_onnx(
    model: CFMVC,
    directory: str | Path,
    *,
    solvers: Sequence[Method] = get_args(Method),
    overwrite: bool = False,
) -> None:
    """Export a trained model to a directory that `runtime.Bundle` predicts from without torch.

    The directory holds the encoder, the decoder and, for each solver, the flow with the solver's loop inside as ONNX
    graphs; a card in JSON (genes, perturbations, columns, versions); what the model remembers of its training cells,
    with the expected level of each condition seen; a question with its answer; and the sha256 of each file. It holds
    counts of training cells, as a saved model does: treat it with the same care.

    Parameters
    ----------
    model
        Trained, with a flow.
    directory
        To create.
    solvers
        Methods of the ODE to export.
    overwrite
        Replace an exported model that stands there.

    Raises
    ------
    NotTrainedError
        If a stage is not trained.
    DataError
        If the model has no perturbations, or a solver does not exist.
    UnsupportedError
        If the model has a part that is not exported: a spatial niche, MuData, minified counts.
    ModelFileError
        If something stands at `directory` that may not be replaced.
    CorruptModelError
        If the graphs do not answer as the model does; nothing is written then.
    MissingExtraError
        If the extra ``onnx`` is not installed.
    """
    require_extra("onnx", "onnx")
    onnx_runtime("onnx")
    if not solvers or not set(solvers) <= set(get_args(Method)):
        raise DataError(f"solvers is {list(solvers)}; choose one or more of {', '.join(get_args(Method))}.")
    original = as_bundle(model, solvers)
    module = copy.deepcopy(model.module).cpu().double().eval()
    columns = original.card.columns
    graphs = {
        ENCODER_FILE: encoder_graph(module),
        DECODER_FILE: decoder_graph(module, len(columns.categories), len(columns.continuous)),
        **{field_file(method): field_graph(module, method) for method in solvers},
    }
    reference = original.known.reference.state(with_goals=True)
    reference["panel"]["tensors"] = {key: value for key, value in reference["panel"]["tensors"].items() if key in _READ}
    golden = golden_question(original)
    Bundle.of(original.card, reference, golden, graphs).check()
    write_export(Path(directory), original.card, reference, golden, graphs, overwrite=overwrite)


def as_bundle(model: CFMVC, solvers: Sequence[Method] = get_args(Method)) -> Bundle:
    """Return a trained model as a `Bundle` whose networks still run in torch; arguments and errors as of `to_onnx`."""
    model._require_flow()
    _refuse_unsupported(model)
    networks = TorchNetworks(model.module)
    setup, known = model.registry["setup_args"], model._known
    card = Card(
        genes=[str(name) for name in np.asarray(model.get_var_names())],
        vocabulary=known.vocabulary.to_dict(),
        columns=_columns(model, setup),
        labels=list(known.labels),
        batches=list(known.batches),
        samples=None if known.samples is None else list(known.samples),
        n_intrinsic=networks.n_intrinsic,
        n_technical=networks.n_technical,
        location=networks.location.tolist(),
        scale=networks.scale,
        source=model.source_,
        solvers=list(solvers),
        allow_non_integer=bool(setup.get("allow_non_integer")),
        versions={name: importlib.metadata.version(name) for name in _PACKAGES if _is_installed(name)},
    )
    return Bundle(card, known.reference, networks)


def _refuse_unsupported(model: CFMVC) -> None:
    setup = model.registry["setup_args"]
    parts = {
        "spatial_key (the niche of a cell needs its neighbours)": setup.get("spatial_key") is not None,
        "MuData": "modalities" in setup and setup["modalities"] is not None,
    }
    if found := [name for name, present in parts.items() if present]:
        raise UnsupportedError(f"an exported model does not support {', '.join(found)}; use the model itself")


def _columns(model: CFMVC, setup: dict[str, Any]) -> Columns:
    categories = model._state(REGISTRY_KEYS.CAT_COVS_KEY).get("mappings", {})
    continuous = model._state(REGISTRY_KEYS.CONT_COVS_KEY).get("columns", [])
    return Columns(
        perturbation=setup["perturbation_key"],
        dose=setup.get("dose_key"),
        labels=setup.get("labels_key"),
        batch=setup.get("batch_key"),
        sample=setup.get("sample_key"),
        categories={str(name): [str(value) for value in values] for name, values in categories.items()},
        continuous=[str(name) for name in np.asarray(continuous)],
    )


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
