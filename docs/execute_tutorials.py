"""Run the tutorials and write them with their outputs: `python docs/execute_tutorials.py [NAME ...]`.

Sources are `tutorials/*.py`, in jupytext's percent format; results are `docs/tutorials/*.ipynb`. Each runs in an empty
directory, offline, and stops at the first error.
"""

import os
import re
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
_LOG = re.compile(r"^\x1b\[\d+mINFO.*\n(\s*\n)?", re.MULTILINE)
_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def execute(source: Path, target: Path) -> tuple[float, float]:
    """Run a tutorial from scratch, write it with its outputs, and return the seconds it took, and those of CPU."""
    notebook = jupytext.read(source)
    notebook.metadata = nbformat.from_dict({"kernelspec": _KERNEL})
    begin, cpu = time.monotonic(), _cpu_seconds()
    with tempfile.TemporaryDirectory() as directory:
        NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": directory}}).execute()
    took = time.monotonic() - begin, _cpu_seconds() - cpu
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # random ids, and times, would change with every run
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = [_without_logs(output) for output in cell.outputs if output.get("name") != "stderr"]
            cell.outputs = [output for output in cell.outputs if output.get("text") != ""]
    notebook.metadata = nbformat.from_dict({"kernelspec": _KERNEL})
    nbformat.validate(notebook)
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, target)
    return took


def _cpu_seconds() -> float:
    """Of all processes that were started and have ended."""
    spent = os.times()
    return spent.children_user + spent.children_system


def _without_logs(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Leave out the lines that scvi-tools logs to stdout."""
    if output.get("name") == "stdout":
        output["text"] = _LOG.sub("", output["text"])
    return output


def execute_all(names: list[str]) -> None:
    """Run the named tutorials, or all."""
    sources = sorted((ROOT / "tutorials").glob("*.py"))
    if unknown := set(names) - {source.stem for source in sources}:
        raise SystemExit(f"no tutorial '{min(unknown)}'; there are {', '.join(source.stem for source in sources)}")
    for source in sources:
        if not names or source.stem in names:
            target = ROOT / "docs" / "tutorials" / f"{source.stem}.ipynb"
            seconds, cpu_seconds = execute(source, target)
            took = f"{seconds:.0f} s ({cpu_seconds:.0f} s of CPU)"
            print(f"{target.relative_to(ROOT)}: {took}, {target.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    execute_all(sys.argv[1:])
