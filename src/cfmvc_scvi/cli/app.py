"""The commands together: how they are called, what they hide, and how they fail."""

from __future__ import annotations

__all__ = ["app", "main"]

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from cfmvc_scvi.cli.benchmark import benchmark
from cfmvc_scvi.cli.demo import demo
from cfmvc_scvi.cli.evaluate import evaluate
from cfmvc_scvi.cli.export import export
from cfmvc_scvi.cli.info import info
from cfmvc_scvi.cli.look import look
from cfmvc_scvi.cli.predict import predict
from cfmvc_scvi.cli.report import report
from cfmvc_scvi.cli.serve import serve
from cfmvc_scvi.cli.train import train
from cfmvc_scvi.errors import CFMVCError, CFMVCWarning

_DEBUG = "--debug"


class _Commands(TyperGroup):
    """Commands whose expected errors are one line on stderr; `--debug` may stand anywhere."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move `--debug` to the front, so that it can be added to the end of a line that failed."""
        debug = [_DEBUG] * (_DEBUG in args)
        return super().parse_args(ctx, [*debug, *(argument for argument in args if argument != _DEBUG)])

    def invoke(self, ctx: Any) -> Any:
        """Run a command; with `--debug` nothing is hidden."""
        if ctx.params["debug"]:
            return super().invoke(ctx)
        try:
            with _quiet():
                return super().invoke(ctx)
        except (CFMVCError, OSError) as error:
            _tell("error", error)
            raise typer.Exit(1) from error


app = typer.Typer(
    name="cfmvc-scvi",
    cls=_Commands,
    help="Counterfactual single cells: what would these cells look like under another condition?",
    epilog="Start with: cfmvc-scvi demo",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (demo, train, predict, evaluate, benchmark, report, export, serve, info):
    app.command()(command)
app.command(name="app")(look)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("cfmvc-scvi"))
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option(_DEBUG, help="Show tracebacks, logs and all warnings.")] = False,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None: ...


def main() -> None:
    """Run the command line; the exit code is 0, 1 for an error in data, model or files, 2 for a wrong call."""
    app()


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide logs and warnings of other packages, and show our warnings in one line each."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", CFMVCWarning)
            warnings.showwarning = _show_warning
            yield
    finally:
        logging.disable(disabled)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, CFMVCWarning):
        _tell("warning", message)


def _tell(kind: str, message: object) -> None:
    line = " ".join(str(message).split())
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"{kind}: {line}", markup=False)
