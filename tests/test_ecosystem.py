"""What other places know of the package says the same as the package itself."""

import json
import re
import tomllib
from pathlib import Path

import jinja2
import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"matplotlib": "matplotlib-base", "POT": "pot", "PyYAML": "pyyaml", "torch": "pytorch"}
CATEGORIES = {"ecosystem"}


def _recipe() -> dict:
    text = (ROOT / "recipe" / "meta.yaml").read_text()
    return yaml.safe_load(jinja2.Template(text).render(PYTHON="python", python_min="3.11"))


def test_conda_recipe_needs_what_the_package_needs():
    recipe = _recipe()
    assert recipe["package"] == {"name": PROJECT["name"], "version": PROJECT["version"]}
    wanted = [re.fullmatch(r"([\w.-]+)(.*)", requirement).groups() for requirement in PROJECT["dependencies"]]
    expected = [f"{CONDA_NAMES.get(name, name)} {bounds}" for name, bounds in wanted]
    assert recipe["requirements"]["run"] == ["python >=3.11", *expected]
    script = PROJECT["scripts"]["cfmvc-scvi"]
    assert recipe["build"]["entry_points"] == [f"cfmvc-scvi = {script}"]
    assert PROJECT["requires-python"] == ">=3.11"


def test_the_list_of_scverse_gets_all_it_asks_for():
    entry = yaml.safe_load((ROOT / "packaging" / "scverse" / "meta.yaml").read_text())
    asked = {"name", "description", "project_home", "documentation_home", "tutorials_home", "publications", "install"}
    asked |= {"primary_category", "tags", "license", "language", "contact", "test_command", "category"}
    assert set(entry) == asked
    assert entry["name"] == entry["install"]["pypi"] == PROJECT["name"]
    assert entry["license"] == PROJECT["license"]
    assert entry["category"] in CATEGORIES


def test_what_support_to_expect_is_said():
    assert "\n## Support\n" in (ROOT / "README.md").read_text()  # the list of scverse asks for it


def test_zenodo_and_citation_agree():
    deposit = json.loads((ROOT / ".zenodo.json").read_text())
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert deposit["title"] == citation["title"]
    assert deposit["license"] == citation["license"] == PROJECT["license"]
    assert [one["name"] for one in deposit["creators"]] == [one["name"] for one in citation["authors"]]
    assert deposit["keywords"] == citation["keywords"]


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem
)
def test_issue_forms_can_be_filled_in(path):
    form = yaml.safe_load(path.read_text())
    if path.stem == "config":
        assert form["blank_issues_enabled"] is True
        return
    assert form["name"] and form["description"]
    assert any(field.get("validations", {}).get("required") for field in form["body"])
