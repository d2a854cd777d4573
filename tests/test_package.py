"""What must hold of the package and its tree as a whole."""

import ast
import importlib
import inspect
import pkgutil
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import cfmvc_scvi

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
ROOMS = [path for path in SOURCES if path.parent.name != "cfmvc_scvi"]
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(cfmvc_scvi.__path__, "cfmvc_scvi.")
    if not any(part.startswith("_") for part in module.name.split("."))
)
# An absolute path into somebody's machine; names of hosts and relative paths may contain the same words.
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|work|Users|mnt|farm|tmp)/|[A-Z]:\\Users")


def _public_docstrings(module_name: str) -> dict[str, str]:
    """Docstrings of a module, its public names and, for classes, the public members that this package wrote."""
    module = importlib.import_module(module_name)
    found = {module_name: module}
    for name in module.__all__:
        found[f"{module_name}.{name}"] = value = getattr(module, name)
        if inspect.isclass(value):
            for key, member in inspect.getmembers(value):
                # scvi-tools leaves placeholders in some of its own methods, which CFMVC inherits.
                if not key.startswith("_") and (getattr(member, "__module__", None) or "").startswith("cfmvc_scvi"):
                    found[f"{module_name}.{name}.{key}"] = member
    return {name: inspect.getdoc(value) or "" for name, value in found.items()}


@pytest.mark.parametrize("name", ["cfmvc_scvi", *MODULES])
def test_public_module_lists_its_names(name):
    module = importlib.import_module(name)
    assert isinstance(getattr(module, "__all__", None), list), f"{name} has no __all__"
    assert len(set(module.__all__)) == len(module.__all__)
    missing = [public for public in module.__all__ if not hasattr(module, public)]
    assert not missing, f"{name}.__all__ names what is not there: {missing}"


@pytest.mark.parametrize("name", ["cfmvc_scvi", *MODULES])
def test_docstring_templates_are_filled(name):
    unfilled = [where for where, text in _public_docstrings(name).items() if "%(" in text]
    assert not unfilled, f"placeholders of a docstring template remain: {unfilled}"


def test_version_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert cfmvc_scvi.__version__ == version("cfmvc-scvi") == project["version"]
    assert f"\nversion: {project['version']}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## [{project['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def test_readme_commands_are_those_that_ci_runs():
    commands = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("python3 -m venv")]
    ci = (ROOT / ".ci" / "run").read_text().splitlines()
    assert len(commands) == 2
    assert [command for command in commands if command not in ci] == []


def test_no_path_of_a_machine_in_the_tree():
    folders = [".ci", ".github", "benchmarks", "docs", "src", "tests", "tutorials"]
    files = [path for path in ROOT.iterdir() if path.is_file() and path.name != ".git"]  # a file in a worktree
    files += [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    found = []
    for path in files:
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue  # not a text
        found += [f"{path.relative_to(ROOT)}: {hit.group()}" for hit in MACHINE_PATH.finditer(text)]
    assert len(files) > 20
    assert not found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT / "src").as_posix())
def test_source_file_is_of_one_concept(path):
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", ROOMS, ids=lambda path: path.relative_to(ROOT / "src").as_posix())
def test_room_does_not_import_the_face_of_the_package(path):
    # The layers contract cannot see this one, and through it every room would depend on every other.
    imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    names = {alias.name for node in imports if node.module == "cfmvc_scvi" for alias in node.names}
    submodules = {module.name for module in pkgutil.iter_modules(cfmvc_scvi.__path__)}
    assert names <= submodules
