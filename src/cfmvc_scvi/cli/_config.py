"""Runs that can be repeated: options from a file, and the options and versions of a run into one."""

from __future__ import annotations

__all__ = ["read_config", "write_config"]

from importlib.metadata import version
from pathlib import Path
from typing import Any

import typer
import yaml

_PACKAGES = ("cfmvc-scvi", "scvi-tools", "torch", "anndata", "numpy", "scipy")
_RECORD = ("config", "overwrite")  # how a run was started, not what it did
_VERSIONS = "versions"


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Take the options in a file as defaults of the command; what is written by `write_config` can be given back.

    Raises
    ------
    typer.BadParameter
        If the file is not YAML, is no mapping, or names what the command has no option for.
    """
    if path is None:
        return None
    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"'{path}' is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(options, dict):
        raise typer.BadParameter(
            f"'{path}' must be a list of 'option: value' lines, as written beside a trained model."
        )
    named = {str(name).replace("-", "_"): value for name, value in options.items() if name != _VERSIONS}
    known = {str(parameter.name) for parameter in context.command.params} - {"config", "help"}
    if unknown := sorted(set(named) - known):
        raise typer.BadParameter(
            f"'{path}' has '{unknown[0]}', which this command does not; it has: {', '.join(sorted(known))}."
        )
    context.default_map = {**(context.default_map or {}), **named}
    return path


def write_config(context: typer.Context, path: Path) -> None:
    """Write every option of a run, those of its defaults among them, and the versions it was made with."""
    options: dict[str, Any] = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in context.params.items()
        if name not in _RECORD
    }
    versions = {name: version(name) for name in _PACKAGES}
    text = yaml.safe_dump({**options, _VERSIONS: versions}, sort_keys=False, allow_unicode=True)
    path.write_text(f"# Repeat this run: cfmvc-scvi {context.info_name} --config {path.name}\n{text}", encoding="utf-8")
