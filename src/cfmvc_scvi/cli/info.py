"""`cfmvc-scvi info`."""

from __future__ import annotations

__all__ = ["info"]

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

_SHOWN = 8  # names of a list


def info(
    model_dir: Annotated[
        Path, typer.Argument(metavar="MODEL_DIR", exists=True, file_okay=False, help="Directory of a trained model.")
    ],
) -> None:
    """Show what a saved model is: genes, perturbations, contexts, stages, versions.

    Reads the model's files, whose checksums are verified; nothing in them is executed, and saved cells are not opened.
    """
    from cfmvc_scvi.model.persistence import read_bundle

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in _rows(read_bundle(model_dir)).items():
        table.add_row(Text(name, style="bold"), Text(value))
    Console().print(table)


def _rows(bundle: Any) -> dict[str, str]:
    from cfmvc_scvi._keys import CFMVC_REGISTRY_KEYS
    from cfmvc_scvi.data import Vocabulary

    registry, attributes = bundle.attributes["registry_"], bundle.attributes
    fields = {key: field.get("state_registry", {}) for key, field in registry["field_registries"].items()}
    rows = {"model": bundle.class_name, "genes": _names(bundle.var_names)}
    if state := fields.get(CFMVC_REGISTRY_KEYS.PERTURBATION_KEY):
        vocabulary = Vocabulary.from_dict(state["vocabulary"])
        rows |= {"perturbations": _names(vocabulary.perturbations), "control": vocabulary.control}
    if state := bundle.extras.get("reference"):
        from cfmvc_scvi.model.reference import Reference

        reference = Reference.from_state(state)
        perturbed = {context for condition, context in reference.groups if condition > 0}
        names = reference.contexts.names
        rows["contexts"] = _names(names)
        rows["never perturbed"] = _names([names[code] for code in range(len(names)) if code not in perturbed])
    setup = {key: value for key, value in registry["setup_args"].items() if key.endswith("_key") and value}
    rows |= {
        "batches": _names(fields["batch"]["categorical_mapping"]),
        "columns": ", ".join(f"{key.removesuffix('_key')} = obs['{value}']" for key, value in setup.items()),
        "source": attributes["source_"],
        "stages trained": ", ".join(attributes["trained_stages_"]) or "none",
        "saved data": bundle.data_file.name if bundle.data_file else "none",
        "written by": ", ".join(f"{name} {number}" for name, number in bundle.versions.items()),
    }
    return rows


def _names(names: Sequence[Any]) -> str:
    listed = ", ".join(str(name) for name in names[:_SHOWN])
    return f"{len(names)}: {listed}{', ...' if len(names) > _SHOWN else ''}" if len(names) else "none"
