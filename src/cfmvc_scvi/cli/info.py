"""`cfmvc-scvi info`."""

from __future__ import annotations

__all__ = ["info"]

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cfmvc_scvi.cli import _options as options
from cfmvc_scvi.cli._json import print_json

_SHOWN = 8  # names of a list


def info(
    model_dir: Annotated[
        Path, typer.Argument(metavar="MODEL_DIR", exists=True, file_okay=False, help="Directory of a trained model.")
    ],
    json: options.Json = False,
) -> None:
    """Show what a saved model is: genes, perturbations, contexts, stages, versions.

    Reads the model's files, whose checksums are verified; nothing in them is executed, and saved cells are not opened.
    """
    from cfmvc_scvi.model.persistence import read_bundle

    rows = _rows(read_bundle(model_dir))
    if json:
        print_json(rows)
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in rows.items():
        table.add_row(Text(name, style="bold"), Text(_line(value)))
    Console().print(table)


def _rows(bundle: Any) -> dict[str, Any]:
    """Return what a model is: plain texts, lists and mappings."""
    from cfmvc_scvi._keys import CFMVC_REGISTRY_KEYS
    from cfmvc_scvi.data import Vocabulary

    registry, attributes = bundle.attributes["registry_"], bundle.attributes
    fields = {key: field.get("state_registry", {}) for key, field in registry["field_registries"].items()}
    rows = {"model": bundle.class_name, "genes": _listed(bundle.var_names)}
    if state := fields.get(CFMVC_REGISTRY_KEYS.PERTURBATION_KEY):
        vocabulary = Vocabulary.from_dict(state["vocabulary"])
        rows |= {"perturbations": _listed(vocabulary.perturbations), "control": vocabulary.control}
    if state := bundle.extras.get("reference"):
        from cfmvc_scvi.model.reference import Reference

        reference = Reference.from_state(state)
        perturbed = {context for condition, context in reference.groups if condition > 0}
        names = reference.contexts.names
        rows["contexts"] = _listed(names)
        rows["never perturbed"] = [str(names[code]) for code in range(len(names)) if code not in perturbed]
    setup = {key: value for key, value in registry["setup_args"].items() if key.endswith("_key") and value}
    rows |= {
        "batches": _listed(fields["batch"]["categorical_mapping"]),
        "columns": {key.removesuffix("_key"): f"obs['{value}']" for key, value in setup.items()},
        "source": attributes["source_"],
        "stages trained": list(attributes["trained_stages_"]),
        "saved data": bundle.data_file.name if bundle.data_file else "none",
        "written by": {name: str(number) for name, number in bundle.versions.items()},
    }
    return rows


def _listed(names: Iterable[Any]) -> list[str]:
    return [str(name) for name in names]


def _line(value: Any) -> str:
    """One line for a reader: long lists by their number and first names."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    if isinstance(value, list):
        more = ", ..." if len(value) > _SHOWN else ""
        return f"{len(value)}: {', '.join(value[:_SHOWN])}{more}" if value else "none"
    return str(value)
