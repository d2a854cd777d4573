"""The image of `deploy/Dockerfile` holds what the service imports, and its unit for systemd is one."""

import configparser
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.serving

DEPLOY = Path(__file__).parents[2] / "deploy"

SERVE_WITH_THESE_ALONE = """
import sys

class Refused:
    def find_spec(name, path=None, target=None):
        top = name.partition(".")[0]
        if path is None and top in refused:
            raise ModuleNotFoundError(f"No module named {top!r}", name=top)

refused = set(sys.argv[2].split(","))
sys.meta_path.insert(0, Refused)
from cfmvc_scvi.cli import main
from cfmvc_scvi.serve.run import worker_app
from cfmvc_scvi.serve.config import ServeConfig
import cfmvc_scvi.serve._connection

ServeConfig(sys.argv[1]).to_environment()
worker_app()
sys.argv = ["cfmvc-scvi", "serve", "--help"]
main()
"""


def closure(names: list[str]) -> set[str]:
    """Return the distributions that pip installs for these, where it runs."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    while names:
        name = re.sub(r"[-_.]+", "-", names.pop()).lower()
        if name in found:
            continue
        found.add(name)
        wanted = [Requirement(text) for text in importlib.metadata.requires(name) or ()]
        names += [each.name for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found


def test_the_image_has_all_that_the_service_imports(exported: Path) -> None:
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    (listed,) = re.findall(r"-c constraints\.txt\s+([a-z -]+?)\s+&&", text)
    inside = closure(listed.split()) | {"cfmvc-scvi", "pip", "setuptools"}
    refused = [
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if not {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners} & inside and module.isidentifier()
    ]
    assert {"torch", "scvi", "anndata", "pandas"} <= set(refused)
    words = [sys.executable, "-c", SERVE_WITH_THESE_ALONE, str(exported), ",".join(refused)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "BUNDLE" in done.stdout


def test_the_image_runs_as_nobody_and_looks_after_itself() -> None:
    last = (DEPLOY / "Dockerfile").read_text().rpartition("FROM ")[2]
    assert re.search(r"^USER serve$", last, re.M) and re.search(r"^HEALTHCHECK ", last, re.M)
    assert re.search(r"^STOPSIGNAL SIGTERM$", last, re.M) and "COPY ." not in last


def test_the_unit_confines_the_service_and_waits_for_its_requests() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / "cfmvc-serve.service")
    service = unit["Service"]
    assert service["ExecStart"].split()[1:3] == ["serve", "/srv/cfmvc/exported"]
    assert "--host 127.0.0.1" in service["ExecStart"] and "EnvironmentFile" in service
    assert service["DynamicUser"] == "yes" and service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""
    assert service["KillSignal"] == "SIGTERM" and int(service["TimeoutStopSec"]) > 30
